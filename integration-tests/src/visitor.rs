//! A browser without a screen: it keeps cookies by origin and goes where it is sent, one step at a time.

use std::collections::BTreeMap;

use reqwest::header::{COOKIE, LOCATION, SET_COOKIE};
use reqwest::{RequestBuilder, Response, StatusCode, Url};

use crate::http_client;

/// One browser, of one person.
#[derive(Clone)]
pub struct Visitor {
    http: reqwest::Client,
    /// Name and value by origin. Which paths and sites they are for is not looked at.
    pub cookies: BTreeMap<String, BTreeMap<String, String>>,
}

impl Default for Visitor {
    fn default() -> Self {
        Self {
            http: http_client(),
            cookies: BTreeMap::new(),
        }
    }
}

/// An answer, read to its end.
pub struct Page {
    /// The status.
    pub status: StatusCode,
    /// Where it sends the browser.
    pub to: Option<Url>,
    /// Its `Set-Cookie` lines.
    pub set: Vec<String>,
    /// Other headers.
    pub headers: reqwest::header::HeaderMap,
    /// The text.
    pub text: String,
}

impl Page {
    /// The value of a hidden field of its first form that has one of that name.
    pub fn field(&self, name: &str) -> String {
        let start = format!("name=\"{name}\" value=\"");
        let (_, rest) = self
            .text
            .split_once(&start)
            .unwrap_or_else(|| panic!("no field `{name}`: {}", self.text));
        rest.split('"').next().expect("its end").to_owned()
    }

    /// Holds the status and that the page says this.
    pub fn says(self, status: u16, words: &str) -> Self {
        assert_eq!(self.status, status, "{}", self.text);
        assert!(self.text.contains(words), "does not say `{words}`: {}", self.text);
        self
    }
}

impl Visitor {
    /// Asks for a page.
    pub async fn get(&mut self, url: &Url) -> Page {
        let request = self.http.get(url.clone()).header("accept", "text/html");
        self.send(url, request).await
    }

    /// Sends a form, as a page of the same site would.
    pub async fn post(&mut self, url: &Url, form: &[(&str, &str)]) -> Page {
        self.post_with(url, form, &[("sec-fetch-site", "same-origin")])
            .await
    }

    /// Sends a form with these headers.
    pub async fn post_with(&mut self, url: &Url, form: &[(&str, &str)], headers: &[(&str, &str)]) -> Page {
        let encoded = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(form)
            .finish();
        let mut request = self
            .http
            .post(url.clone())
            .header("accept", "text/html")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(encoded);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(url, request).await
    }

    async fn send(&mut self, url: &Url, request: RequestBuilder) -> Page {
        let origin = url.origin().ascii_serialization();
        let jar = self.cookies.entry(origin).or_default();
        let carried: Vec<String> = jar
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let request = if carried.is_empty() {
            request
        } else {
            request.header(COOKIE, carried.join("; "))
        };
        let answer: Response = request.send().await.expect("it answers");
        let texts = |name| {
            let values = answer.headers().get_all(name).iter();
            values
                .map(|v| v.to_str().expect("text").to_owned())
                .collect::<Vec<_>>()
        };
        let set = texts(SET_COOKIE);
        for cookie in &set {
            let pair = cookie.split(';').next().unwrap_or_default();
            let Some((name, value)) = pair.split_once('=') else {
                continue;
            };
            if cookie.contains("Max-Age=0") {
                jar.remove(name);
            } else {
                jar.insert(name.to_owned(), value.to_owned());
            }
        }
        let to = texts(LOCATION).first().map(|to| url.join(to).expect("a URL"));
        Page {
            status: answer.status(),
            to,
            set,
            headers: answer.headers().clone(),
            text: answer.text().await.expect("text"),
        }
    }

    /// Goes where it is sent from `from` on, signing in as `who` where it is asked to, until it is sent elsewhere than to
    /// `site`. Answers where.
    pub async fn sign_in_at(&mut self, site: &str, from: Url, who: &str) -> Url {
        let mut at = from;
        for _ in 0..12 {
            let mut page = self.get(&at).await;
            if page.status == StatusCode::OK {
                // The page on which people sign in.
                page = self.post(&at, &[("who", who)]).await;
            }
            let leads = page.to;
            at = leads.unwrap_or_else(|| panic!("{at} leads nowhere: {} {}", page.status, page.text));
            if !at.as_str().starts_with(site) {
                return at;
            }
        }
        panic!("signing in goes round in circles");
    }
}
