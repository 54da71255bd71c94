//! Checks host, origin and token before anything else of a request is read, and adds headers to every response.

use crate::problem::{Kind, Problem};
use crate::token::Token;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, StatusCode, Uri};
use std::net::SocketAddr;
use std::sync::Arc;

/// The word before a bearer token.
const BEARER: &str = "bearer ";

/// Headers of every response: a page loads nothing from elsewhere, is in no frame, has no guessed type, and sends no
/// referrer.
const HEADERS: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
];

/// Whose requests are accepted.
#[derive(Clone, Debug)]
pub enum Guard {
    /// Those of everybody who can open the socket: its owner.
    Socket,
    /// Those that show the token and name one of these hosts.
    Token(Arc<(Token, Hosts)>),
}

/// The names by which a browser on this machine may reach the gateway. Any other name may belong to a page elsewhere that
/// points its name to this machine (DNS rebinding).
#[derive(Debug)]
pub struct Hosts(Vec<String>);

impl Hosts {
    /// Returns the names of an address on the loopback interface.
    pub fn of(address: SocketAddr) -> Self {
        let port = address.port();
        Self(vec![address.to_string(), format!("localhost:{port}")])
    }

    /// Returns whether this is one of them.
    pub fn has(&self, host: &str) -> bool {
        self.0.iter().any(|known| known.eq_ignore_ascii_case(host))
    }
}

impl Guard {
    /// Accepts requests that show the token, at this address.
    pub fn token(token: Token, address: SocketAddr) -> Self {
        Self::Token(Arc::new((token, Hosts::of(address))))
    }

    fn check(&self, uri: &Uri, method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
        let forbidden = |why: &str| Problem::new(StatusCode::FORBIDDEN, Kind::NotAllowed, why);
        let shown = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
        let Self::Token(known) = self else {
            return match shown(header::ORIGIN) {
                None => Ok(()),
                Some(_) => Err(forbidden(
                    "pages of browsers may not use this socket; nothing was done",
                )),
            };
        };
        let (token, hosts) = &**known;
        let authority = uri.authority().map(|authority| authority.as_str());
        let host = authority.or(shown(header::HOST)).unwrap_or_default();
        if !hosts.has(host) || shown(header::HOST).is_some_and(|host| !hosts.has(host)) {
            return Err(Problem::new(
                StatusCode::MISDIRECTED_REQUEST,
                Kind::NotAllowed,
                "the gateway does not answer to this host name; nothing was done: use the address that it printed",
            ));
        }
        let own = |origin: &str| {
            origin
                .strip_prefix("http://")
                .is_some_and(|host| hosts.has(host))
        };
        let foreign = shown(header::ORIGIN).is_some_and(|origin| !own(origin));
        let site = shown(HeaderName::from_static("sec-fetch-site"));
        // A link elsewhere may open the page itself.
        let opened = is_page(uri, method);
        let crossing = site.is_some_and(|site| !matches!(site, "same-origin" | "none"));
        if foreign || (crossing && !opened) {
            return Err(forbidden(
                "pages of another origin may not use the gateway; nothing was done",
            ));
        }
        if opened {
            return Ok(());
        }
        let right = |shown: &str| {
            let (word, rest) = shown.split_at_checked(BEARER.len()).unwrap_or_default();
            word.eq_ignore_ascii_case(BEARER) && token.is(rest.trim().as_bytes())
        };
        if shown(header::AUTHORIZATION).is_some_and(right) {
            return Ok(());
        }
        Err(Problem::new(
            StatusCode::UNAUTHORIZED,
            Kind::NotAllowed,
            "the request shows no token, or a wrong one; nothing was done: send the header `Authorization: Bearer \
             TOKEN` with the token of this gateway's file",
        ))
    }
}

/// Returns whether a request is for a file of the dashboard. These are the same for everybody and need no token.
fn is_page(uri: &Uri, method: &Method) -> bool {
    let read = matches!(*method, Method::GET | Method::HEAD);
    read && (uri.path() == "/" || uri.path().starts_with("/ui/"))
}

/// Passes a request on, or refuses it before its body is read.
pub async fn guarded(guard: Guard, request: Request, next: Next) -> Response {
    let allowed = guard.check(request.uri(), request.method(), request.headers());
    let mut response = match allowed {
        Ok(()) => next.run(request).await,
        Err(problem) => {
            let mut response = problem.into_response();
            // The rest of the connection is not read.
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
            response
        }
    };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORT: &str = "127.0.0.1:7780";

    fn check(guard: &Guard, path: &str, headers: &[(&'static str, &str)]) -> Result<(), u16> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        let uri = path.parse().unwrap();
        let checked = guard.check(&uri, &Method::GET, &map);
        checked.map_err(|problem| problem.status)
    }

    #[test]
    fn only_the_owner_and_the_gateways_own_page_get_in() {
        let token = Token::draw().unwrap();
        let bearer = format!("Bearer {}", token.text());
        let guard = Guard::token(token, PORT.parse().unwrap());
        let ok = [("host", PORT), ("authorization", &*bearer)];
        assert_eq!(check(&guard, "/v1/jobs", &ok), Ok(()));
        let with = |name, value| {
            let mut headers = ok.to_vec();
            headers.retain(|(known, _)| *known != name);
            headers.push((name, value));
            check(&guard, "/v1/jobs", &headers)
        };
        assert_eq!(with("host", "LOCALHOST:7780"), Ok(()));
        for host in ["example.org:7780", "127.0.0.1", "127.0.0.1:7781", ""] {
            assert_eq!(with("host", host), Err(421), "{host}");
        }
        assert_eq!(check(&guard, "/v1/jobs", &ok[1..]), Err(421));
        assert_eq!(with("origin", "http://127.0.0.1:7780"), Ok(()));
        for origin in ["http://example.org", "https://127.0.0.1:7780", "null", ""] {
            assert_eq!(with("origin", origin), Err(403), "{origin}");
        }
        assert_eq!(with("sec-fetch-site", "same-origin"), Ok(()));
        assert_eq!(with("sec-fetch-site", "cross-site"), Err(403));
        for shown in [
            "",
            "Bearer",
            "Bearer ",
            "Basic x",
            &bearer[..bearer.len() - 1],
        ] {
            assert_eq!(with("authorization", shown), Err(401), "{shown}");
        }
        // The page needs no token, and no other page may read it.
        assert_eq!(
            check(
                &guard,
                "/",
                &[("host", PORT), ("sec-fetch-site", "cross-site")]
            ),
            Ok(())
        );
        assert_eq!(check(&guard, "/ui/x.js", &[("host", PORT)]), Ok(()));
        assert_eq!(check(&guard, "/", &[("host", "example.org")]), Err(421));
        assert_eq!(check(&guard, "/metrics", &[("host", PORT)]), Err(401));
    }

    #[test]
    fn no_page_uses_the_socket() {
        let guard = Guard::Socket;
        assert_eq!(check(&guard, "/v1/jobs", &[("host", "anything")]), Ok(()));
        assert_eq!(
            check(&guard, "/v1/jobs", &[("origin", "http://localhost")]),
            Err(403)
        );
    }
}
