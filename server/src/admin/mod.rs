//! The listener for operators' machines: health and metrics. Not for the public, and knows nothing of resources.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, RETRY_AFTER};
use actix_web::{HttpResponse, web};
use handoff_domain::ports::{BlobError, StoreError};
use serde_json::json;
use tokio::time::timeout;

use crate::app::App;
use crate::http::connection::Connections;
use crate::http::room::Room;
use crate::telemetry::clients::Present;
use crate::telemetry::metrics;

/// A part that does not answer in this time is down.
const PATIENCE: Duration = Duration::from_secs(2);

/// How a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    up: bool,
    /// What is wrong with it; addresses and credentials are not in it.
    detail: &'static str,
}

impl Part {
    const UP: Self = Self { up: true, detail: "" };

    const fn down(detail: &'static str) -> Self {
        Self { up: false, detail }
    }

    fn to_json(self) -> serde_json::Value {
        if self.up {
            json!({ "status": "up" })
        } else {
            json!({ "status": "down", "detail": self.detail })
        }
    }
}

/// What is shown.
#[derive(Clone)]
pub struct Shown {
    /// Its parts are asked how they are.
    pub app: App,
    /// Those of the public listener.
    pub connections: Arc<Connections>,
    /// What requests hold.
    pub room: Arc<Room>,
}

/// The routes of the admin listener.
pub fn configure(config: &mut web::ServiceConfig, shown: Shown) {
    config
        .app_data(web::Data::new(shown))
        .route("/health/live", web::get().to(live))
        .route("/health/ready", web::get().to(ready))
        .route("/metrics", web::get().to(show_metrics))
        .default_service(web::to(|| async {
            HttpResponse::NotFound().json(json!({ "error": "not found" }))
        }));
}

async fn live() -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "no-store"))
        .json(json!({ "status": "up" }))
}

async fn ready(shown: web::Data<Shown>) -> HttpResponse {
    let app = &shown.app;
    let database = async {
        match timeout(PATIENCE, app.store.ready()).await {
            Ok(Ok(())) => Part::UP,
            Ok(Err(error)) => Part::down(store_detail(&error)),
            Err(_) => Part::down("no answer in time"),
        }
    };
    let blobs = async {
        match timeout(PATIENCE, app.blobs.ready()).await {
            Ok(Ok(())) => Part::UP,
            Ok(Err(error)) => Part::down(blob_detail(&error)),
            Err(_) => Part::down("no answer in time"),
        }
    };
    let (database, blobs) = tokio::join!(database, blobs);
    answer(database, blobs)
}

const fn store_detail(error: &StoreError) -> &'static str {
    match error {
        StoreError::Conflict => "busy",
        StoreError::Unavailable(_) => "unavailable",
        StoreError::Full => "no room left",
        StoreError::Broken(_) => "not as expected; are its migrations applied?",
    }
}

const fn blob_detail(error: &BlobError) -> &'static str {
    match error {
        BlobError::Full => "no room left",
        BlobError::NotFound => "the container is missing",
        BlobError::Changed | BlobError::TooLarge { .. } | BlobError::SourceFailed => "not as expected",
        BlobError::Unavailable(_) => "unavailable, or not private",
    }
}

fn answer(database: Part, blobs: Part) -> HttpResponse {
    let up = database.up && blobs.up;
    let status = if up {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let mut response = HttpResponse::build(status);
    response.insert_header((CACHE_CONTROL, "no-store"));
    if !up {
        response.insert_header((RETRY_AFTER, "2"));
    }
    response.json(json!({
        "status": if up { "up" } else { "down" },
        "parts": { "database": database.to_json(), "blobs": blobs.to_json() },
    }))
}

async fn show_metrics(shown: web::Data<Shown>) -> HttpResponse {
    let present = Present {
        connections: (shown.connections.count(), shown.connections.most()),
        downloads: shown.room.downloads(),
        uploads: shown.room.uploads(),
        buffered: shown.room.buffered(),
    };
    HttpResponse::Ok()
        .content_type("text/plain; version=0.0.4; charset=utf-8")
        .body(metrics::render(shown.app.streams.count(), &present))
}

#[cfg(test)]
mod tests {
    use actix_web::body::to_bytes;

    use super::*;

    async fn told(database: Part, blobs: Part) -> (u16, bool, String) {
        let response = answer(database, blobs);
        let (status, retry) = (
            response.status().as_u16(),
            response.headers().contains_key(RETRY_AFTER),
        );
        let body = to_bytes(response.into_body()).await.unwrap();
        (status, retry, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn readiness_names_the_part_that_is_down() {
        let (status, retry, _) = told(Part::UP, Part::UP).await;
        assert_eq!((status, retry), (200, false));
        let (status, retry, body) = told(Part::down("unavailable"), Part::UP).await;
        assert_eq!((status, retry), (503, true));
        assert_eq!(
            body,
            r#"{"status":"down","parts":{"database":{"status":"down","detail":"unavailable"},"blobs":{"status":"up"}}}"#
        );
    }
}
