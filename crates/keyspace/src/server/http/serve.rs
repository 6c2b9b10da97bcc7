//! The page's thread: connections and paths.

use super::guard::Guard;
use super::link::{Ask, Facts, LoopEnd, PageEnd, link};
use super::metrics;
use super::state::State;
use crate::server::config::Config;
use crate::server::net::listen::is_loopback;
use anyhow::{Context, bail};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use mio::Waker;
use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot::Sender;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::timeout;

/// Connections at once; those beyond are closed.
const MAX_CONNECTIONS: usize = 32;
/// Descriptors of the page: its connections, its listener, and what its runtime waits with.
pub(crate) const DESCRIPTORS: i64 = MAX_CONNECTIONS as i64 + 16;
/// The head of a request.
const MAX_HEAD_BYTES: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;
/// For the head of a request to come, and so for a connection to be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// For a connection altogether: one that takes no answers has to end as well.
const CONNECTION_LIFE: Duration = Duration::from_secs(300);
/// For the event loop to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// How old a state may be that is shown again: four are taken a second at most.
const FRESH: Duration = Duration::from_millis(250);
const STACK_BYTES: usize = 512 * 1024;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

/// The files of the page: path, type, contents.
const FILES: &[(&str, &str, &str)] = &[
    ("/", "text/html; charset=utf-8", include_str!("page/index.html")),
    ("/page.css", "text/css; charset=utf-8", include_str!("page/page.css")),
    ("/page.js", "text/javascript; charset=utf-8", include_str!("page/page.js")),
];

type Answer = Response<Full<Bytes>>;

struct Page {
    guard: Guard,
    /// Whether others than this machine reach it: they are shown figures for the token only.
    is_open: bool,
    link: PageEnd,
    /// The last state and when it was taken; locked while another is, so that all share it.
    last: Mutex<Option<(Instant, Arc<State>)>>,
}

/// Starts the thread. Returns the loop's end of the link and the page's address.
///
/// # Errors
/// If the address is wrong or taken, or open to strangers without a password.
pub(crate) fn start(config: &Config, waker: Waker) -> anyhow::Result<(LoopEnd, String)> {
    let address: SocketAddr = config
        .http
        .parse()
        .with_context(|| format!("http {}: not an address such as 127.0.0.1:8080", config.http))?;
    if !is_loopback(address.ip()) && config.is_protected() {
        bail!(
            "http {address} would let anybody in; set requirepass to a password, or \
             protected-mode to no if the network keeps strangers out"
        );
    }
    let listener = TcpListener::bind(address).with_context(|| format!("http {address}"))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let guard = Guard::new()?;
    let url = format!("http://{address}/#token={}", guard.token());
    let (link, loop_end) = link(waker);
    loop_end.follow(config);
    std::thread::Builder::new()
        .name("page".to_owned())
        .stack_size(STACK_BYTES)
        .spawn(move || {
            if let Err(error) = run(listener, guard, link, !is_loopback(address.ip())) {
                tracing::error!("the page has ended: {error:#}");
            }
        })
        .context("cannot start the thread of the page")?;
    Ok((loop_end, url))
}

fn run(listener: TcpListener, guard: Guard, link: PageEnd, is_open: bool) -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let tasks = tokio::task::LocalSet::new();
    let page = Page { guard, is_open, link, last: Mutex::new(None) };
    tasks.block_on(&runtime, accept(listener, Rc::new(page)))
}

async fn accept(listener: TcpListener, page: Rc<Page>) -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            // Out of descriptors, most likely.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let page = Rc::clone(&page);
        tokio::task::spawn_local(async move {
            let is_local = is_loopback(peer.ip());
            let service = service_fn(move |request| respond(Rc::clone(&page), is_local, request));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .max_buf_size(MAX_HEAD_BYTES)
                .max_headers(MAX_HEADERS)
                .serve_connection(TokioIo::new(stream), service);
            // Whatever went wrong, it was the other side's doing.
            let _ = timeout(CONNECTION_LIFE, connection).await;
            drop(place);
        });
    }
}

async fn respond(
    page: Rc<Page>,
    is_local: bool,
    request: Request<Incoming>,
) -> Result<Answer, Infallible> {
    if !is_local && page.link.is_protected() {
        return Ok(plain(StatusCode::FORBIDDEN, "the server is in protected mode"));
    }
    // Bodies are never read: hyper closes the connection behind one that was sent.
    Ok(match (Guard::is_for_us(request.headers()), request.method()) {
        (false, _) => plain(StatusCode::MISDIRECTED_REQUEST, "not the name of this server"),
        (true, &Method::GET) => {
            let may_know = !page.is_open || page.guard.knows_token(request.headers());
            page.get(request.uri().path(), may_know).await
        }
        (true, &Method::POST) if page.guard.may_act(request.headers()) => {
            page.act(request.uri().path()).await
        }
        (true, &Method::POST) => plain(StatusCode::FORBIDDEN, "the token is missing or wrong"),
        (true, _) => plain(StatusCode::METHOD_NOT_ALLOWED, "GET and POST only"),
    })
}

impl Page {
    async fn get(&self, path: &str, may_know: bool) -> Answer {
        if let Some((_, kind, text)) = FILES.iter().find(|file| file.0 == path) {
            return answer(StatusCode::OK, kind, *text);
        }
        if !matches!(path, "/api/state" | "/metrics" | "/healthz") {
            return plain(StatusCode::NOT_FOUND, "there is nothing here");
        }
        if !may_know && path != "/healthz" {
            return plain(StatusCode::FORBIDDEN, "the token is missing or wrong");
        }
        let Some(state) = self.state().await else {
            return plain(StatusCode::SERVICE_UNAVAILABLE, "the event loop does not answer");
        };
        let made = match path {
            "/healthz" => return plain(StatusCode::OK, "ok"),
            "/metrics" => metrics::text(state).ok().map(|text| (metrics::CONTENT_TYPE, text)),
            _ => serde_json::to_string(&*state).ok().map(|text| ("application/json", text)),
        };
        match made {
            Some((kind, text)) => answer(StatusCode::OK, kind, text),
            None => plain(StatusCode::INTERNAL_SERVER_ERROR, "the state cannot be written"),
        }
    }

    async fn act(&self, path: &str) -> Answer {
        let done = match path {
            "/api/purge" => self.ask(Ask::Purge).await.map(|bytes| Ok(format!("{bytes}"))),
            "/api/defrag" => self.told(Ask::Defrag).await,
            "/api/activedefrag/yes" => self.told(|to| Ask::ActiveDefrag(true, to)).await,
            "/api/activedefrag/no" => self.told(|to| Ask::ActiveDefrag(false, to)).await,
            _ => return plain(StatusCode::NOT_FOUND, "there is nothing here"),
        };
        tracing::info!("asked for by the page: {path}");
        // What was done should be seen at once.
        *self.last.lock().await = None;
        match done {
            Some(Ok(text)) => plain(StatusCode::OK, text),
            Some(Err(why)) => plain(StatusCode::CONFLICT, why),
            None => plain(StatusCode::SERVICE_UNAVAILABLE, "the event loop does not answer"),
        }
    }

    /// What is answered to something that may be refused.
    async fn told(
        &self,
        ask: impl FnOnce(Sender<Result<(), &'static str>>) -> Ask,
    ) -> Option<Result<String, &'static str>> {
        Some(self.ask(ask).await?.map(|()| "ok".to_owned()))
    }

    async fn ask<T>(&self, ask: impl FnOnce(Sender<T>) -> Ask) -> Option<T> {
        timeout(ANSWER_TIMEOUT, self.link.ask(ask)).await.ok().flatten()
    }

    /// The state, a fresh one if the last is old.
    async fn state(&self) -> Option<Arc<State>> {
        let mut last = self.last.lock().await;
        if let Some((at, state)) = &*last
            && at.elapsed() < FRESH
        {
            return Some(Arc::clone(state));
        }
        let facts: Facts = self.ask(Ask::Facts).await?;
        let state = Arc::new(State::now(facts));
        *last = Some((Instant::now(), Arc::clone(&state)));
        Some(state)
    }
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    answer(status, "text/plain; charset=utf-8", text)
}

fn answer(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = [
        (CONTENT_TYPE, kind),
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    for (name, value) in headers {
        answer.headers_mut().insert(name, hyper::header::HeaderValue::from_static(value));
    }
    answer
}
