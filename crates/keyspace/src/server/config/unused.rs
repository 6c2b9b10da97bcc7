//! Directives of redis.conf that are taken and not used.
//!
//! A redis.conf as it comes with Redis should start this server too; and a line that somebody relies
//! on should not be passed over. So the directives that say *how* Redis does what is not done here
//! may be there, with any value; those that switch something on, only with the values that leave it
//! off. What else there is in Redis is refused like any name that is not known.

/// Directives about how things are done that are not done here.
const DETAILS: &[&str] = &[
    // Persistence.
    "dir",
    "dbfilename",
    "stop-writes-on-bgsave-error",
    "rdbcompression",
    "rdbchecksum",
    "rdb-del-sync-files",
    "rdb-save-incremental-fsync",
    "appendfilename",
    "appenddirname",
    "appendfsync",
    "no-appendfsync-on-rewrite",
    "auto-aof-rewrite-percentage",
    "auto-aof-rewrite-min-size",
    "aof-load-truncated",
    "aof-use-rdb-preamble",
    "aof-timestamp-enabled",
    "aof-rewrite-incremental-fsync",
    // Replication.
    "repl-diskless-sync",
    "repl-diskless-sync-delay",
    "repl-diskless-sync-max-replicas",
    "repl-diskless-load",
    "repl-disable-tcp-nodelay",
    "repl-backlog-size",
    "repl-backlog-ttl",
    "replica-serve-stale-data",
    "replica-read-only",
    "replica-priority",
    "replica-lazy-flush",
    "replica-ignore-maxmemory",
    // Kinds of values that there are not.
    "list-max-listpack-size",
    "list-compress-depth",
    "set-max-intset-entries",
    "set-max-listpack-entries",
    "set-max-listpack-value",
    "zset-max-listpack-entries",
    "zset-max-listpack-value",
    "hll-sparse-max-bytes",
    "stream-node-max-bytes",
    "stream-node-max-entries",
    // Logs of slow commands and of refusals.
    "slowlog-log-slower-than",
    "slowlog-max-len",
    "latency-monitor-threshold",
    "latency-tracking",
    "acllog-max-len",
    // The process.
    "pidfile",
    "always-show-logo",
    "set-proc-title",
    "proc-title-template",
    "oom-score-adj-values",
    "disable-thp",
    // The timer and the tables: both work in other ways.
    "activerehashing",
    "dynamic-hz",
];

/// Directives that switch on what is not there, and the values that do not.
const SWITCHES: &[(&str, &[&str])] = &[
    ("daemonize", &["no"]),
    ("supervised", &["no", "auto"]),
    ("logfile", &[""]),
    ("syslog-enabled", &["no"]),
    ("oom-score-adj", &["no"]),
    ("notify-keyspace-events", &[""]),
    ("cluster-enabled", &["no"]),
    ("tls-port", &["0"]),
];

/// The name of a directive that is one of these; an error, which says what may be set, if its value
/// would have to be heeded.
pub(super) fn find(name: &str, value: &str) -> Option<Result<&'static str, String>> {
    let is = |it: &&str| it.eq_ignore_ascii_case(name);
    if let Some(found) = DETAILS.iter().find(|it| is(it)) {
        return Some(Ok(found));
    }
    let (found, values) = SWITCHES.iter().find(|(it, _)| is(it))?;
    Some(match values.iter().any(|it| it.eq_ignore_ascii_case(value)) {
        true => Ok(found),
        false => {
            let quoted: Vec<String> = values.iter().map(|it| format!("{it:?}")).collect();
            Err(format!("that is not there: only {} can be set", quoted.join(" or ")))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::config::params::{Param, TABLE};

    #[test]
    fn only_what_changes_nothing_is_taken() {
        assert_eq!(find("DIR", "/tmp"), Some(Ok("dir")));
        assert_eq!(find("daemonize", "NO"), Some(Ok("daemonize")));
        assert!(
            find("daemonize", "yes").is_some_and(|it| it.is_err_and(|it| it.contains("\"no\"")))
        );
        assert!(find("logfile", "a.log").is_some_and(|it| it.is_err()));
        assert_eq!(find("replicaof", "127.0.0.1 6379"), None);
        assert_eq!(find("rename-command", "CONFIG \"\""), None);
    }

    #[test]
    fn the_readme_lists_all_directives() {
        let readme = include_str!("../../../README.md");
        let section = readme.split("## redis.conf").nth(1).expect("the section");
        let section = section.split("\n## ").next().expect("its end");
        let unused = DETAILS.iter().copied().chain(SWITCHES.iter().map(|(name, _)| *name));
        for name in TABLE.iter().map(|param| param.name).chain(unused.clone()) {
            let is_listed = ["`", " "].iter().any(|end| section.contains(&format!("`{name}{end}")));
            assert!(is_listed, "{name} is not in the README");
        }
        for name in unused {
            assert!(Param::find(name).is_none(), "{name} is used");
        }
    }
}
