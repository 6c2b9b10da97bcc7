//! Who may ask, and who may act.
//!
//! A page of anybody's, open in the same browser, can send requests to loopback addresses. It can
//! read no answer unless its own name leads here (DNS rebinding): so the name in `Host` must be one
//! that nobody can point elsewhere, an address or `localhost`. It can send a POST without asking
//! only if that has no header of its own: so acting needs the token in a header, and an `Origin`,
//! where there is one, must be this place. The token is new at each start, compared in constant
//! time, and printed on the console; cookies, which browsers add by themselves, are not used. Where
//! the address can be reached from other machines, figures are shown for the token only too; and
//! while the server has no password and is in protected mode, other machines are shown nothing.

use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HOST, ORIGIN};
use std::net::IpAddr;
use subtle::ConstantTimeEq;

/// The header that the token comes in.
pub(super) const TOKEN_HEADER: &str = "x-keyspace-token";

/// What is needed to act.
#[derive(Debug)]
pub(super) struct Guard {
    token: String,
}

impl Guard {
    /// One with a new token.
    pub(super) fn new() -> anyhow::Result<Self> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no random token: {error}"))?;
        Ok(Self { token: bytes.iter().map(|byte| format!("{byte:02x}")).collect() })
    }

    /// The token.
    pub(super) fn token(&self) -> &str {
        &self.token
    }

    /// Whether the request is meant for this place.
    pub(super) fn is_for_us(headers: &HeaderMap) -> bool {
        let Some(host) = text(headers, HOST.as_str()) else { return false };
        // `[::1]:8080`, `127.0.0.1:8080`, `localhost`.
        let name = match host.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => host.split(':').next().unwrap_or_default(),
        };
        name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
    }

    /// Whether the request has the token: in its own header, or in the one that scrapers of metrics
    /// can be told to send.
    pub(super) fn knows_token(&self, headers: &HeaderMap) -> bool {
        let bearer = || text(headers, AUTHORIZATION.as_str())?.strip_prefix("Bearer ");
        let token = text(headers, TOKEN_HEADER).or_else(bearer).unwrap_or_default();
        bool::from(token.as_bytes().ct_eq(self.token.as_bytes()))
    }

    /// Whether the request may change anything.
    pub(super) fn may_act(&self, headers: &HeaderMap) -> bool {
        let is_ours = text(headers, ORIGIN.as_str())
            .is_none_or(|origin| origin.strip_prefix("http://") == text(headers, HOST.as_str()));
        self.knows_token(headers) && is_ours
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        let each = list
            .iter()
            .map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")));
        each.collect()
    }

    #[test]
    fn names_that_can_be_pointed_here_are_refused() {
        for host in ["127.0.0.1:8080", "localhost", "LOCALHOST:1", "[::1]:8080", "10.0.0.1"] {
            assert!(Guard::is_for_us(&headers(&[("host", host)])), "{host}");
        }
        for host in ["evil.example", "127.0.0.1.evil.example:80", "localhost.evil", "", "[evil]"] {
            assert!(!Guard::is_for_us(&headers(&[("host", host)])), "{host}");
        }
        assert!(!Guard::is_for_us(&headers(&[])));
    }

    #[test]
    fn the_token_may_come_as_that_of_a_bearer() {
        let guard = Guard::new().expect("random bytes");
        let bearer = |value: &str| guard.knows_token(&headers(&[("authorization", value)]));
        assert!(bearer(&format!("Bearer {}", guard.token())));
        assert!(!bearer(guard.token()) && !bearer("Bearer ") && !bearer("Bearer 0123"));
        assert!(!guard.knows_token(&headers(&[])));
    }

    #[test]
    fn acting_needs_the_token_and_the_own_origin() {
        let guard = Guard::new().expect("random bytes");
        let with = |token: &str, origin: &str| {
            let list = [("host", "[::1]:1"), (TOKEN_HEADER, token), ("origin", origin)];
            guard.may_act(&headers(&list))
        };
        assert!(with(guard.token(), "http://[::1]:1"));
        assert!(guard.may_act(&headers(&[(TOKEN_HEADER, guard.token())])));
        assert!(!with(guard.token(), "http://evil.example"));
        assert!(!with(guard.token(), "null"));
        assert!(!with("", "http://[::1]:1"));
        assert!(!with(&guard.token()[1..], "http://[::1]:1"));
        assert!(!guard.may_act(&headers(&[])));
    }
}
