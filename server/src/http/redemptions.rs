//! `/redemptions/{id}/content`: the stream of one redemption, and the rest of it after an interruption.

use actix_web::{HttpRequest, HttpResponse, web};
use handoff_domain::ids::RedemptionId;

use super::HttpState;
use super::access_grants::{Ids, not_allowed};
use super::answer::{Face, failure};
use super::cors::cors;
use super::pages::{is_for_reading, refusal};
use super::session::visitor;
use super::stream::{content, preview, resume_of};
use crate::app::AppError;
use crate::app::redeem::Fetched;

/// The route.
pub fn routes(cfg: &mut web::ServiceConfig, origins: &[String]) {
    cfg.service(
        web::resource("/redemptions/{id}/content")
            .wrap(cors(origins))
            .route(web::get().to(serve))
            .route(web::head().to(serve))
            .default_service(web::to(not_allowed)),
    );
}

async fn serve(state: web::Data<HttpState>, request: HttpRequest, id: web::Path<Ids>) -> HttpResponse {
    let answer = async {
        let visitor = visitor(&state, &request).await?;
        let caller = visitor.caller();
        let id = RedemptionId::parse(id.id.as_str()).map_err(|_| AppError::not_found())?;
        let head = request.method() == actix_web::http::Method::HEAD;
        let taken = state.room.download_unless(head)?;
        match state
            .app
            .redemption_content(caller, id, resume_of(&request), head)
            .await?
        {
            Fetched::Preview(found) => Ok(preview(&state, &request, &found.binary)),
            Fetched::Content(ticket) => content(&state, &request, caller, *ticket, taken).await,
        }
    };
    match answer.await {
        Ok(response) => response,
        Err(error) if is_for_reading(&request) => refusal(&state, &request, &error, None),
        Err(error) => failure(&state, &request, Face::Problem, &error),
    }
}
