//! The HTTP edge: routes, who is calling, and how an answer or a failure is written down.
//! Decides nothing about access: that is asked of `app`.

pub mod access_grants;
pub mod answer;
pub mod attempts;
pub mod audit;
pub mod body;
pub mod break_glass;
pub mod connection;
pub mod cors;
pub mod dead_letters;
mod disclosures;
pub mod discovery;
mod drift;
pub mod pages;
pub mod quarantine;
mod records;
pub mod redemptions;
pub mod request;
pub mod revocations;
pub mod room;
pub mod scopes;
pub mod session;
pub mod sign_in;
pub mod stream;
pub mod traced;
pub mod websocket;
pub mod wrapped;

use std::collections::BTreeSet;
use std::sync::Arc;

use actix_web::web;
use handoff_domain::ids::TenantId;
use handoff_identity::TokenValidator;

use crate::app::App;
use crate::app::caps::Caps;
use crate::config::{AddressRange, Clients, Limits, Timeouts};

/// What every handler works with.
#[derive(Clone)]
pub struct HttpState {
    /// The use cases.
    pub app: App,
    /// Checks access tokens.
    pub validator: Arc<TokenValidator<Caps>>,
    /// The tenants that are served.
    pub tenants: Arc<BTreeSet<TenantId>>,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Arc<[AddressRange]>,
    /// Other origins whose browser apps may call the API.
    pub cors_origins: Arc<[String]>,
    /// How large a request may be.
    pub limits: Limits,
    /// How long a request may pause.
    pub timeouts: Timeouts,
    /// How fast clients have to be.
    pub clients: Clients,
    /// What is free of what all requests share.
    pub room: Arc<room::Room>,
    /// Web sockets.
    pub sockets: Arc<websocket::Sockets>,
    /// Who failed lately, and how often.
    pub attempts: Arc<attempts::Attempts>,
    /// When each actor's teams were last written down, so that it is not done at every request.
    pub seen: Arc<request::Seen>,
    /// What is remembered of sources that send notifications.
    pub senders: Arc<crate::notifications::Senders>,
    /// Refused callers lately, so that a flood of them does not fill the audit.
    pub refusals: Arc<request::Refusals>,
}

/// All routes of the public listener, for the default tenant and under `/t/{tenant}` for the others.
pub fn configure(cfg: &mut web::ServiceConfig, state: HttpState) {
    let origins = Arc::clone(&state.cors_origins);
    cfg.app_data(web::Data::new(state));
    cfg.configure(discovery::resource_routes);
    cfg.service(web::scope("/t/{tenant}").configure(|cfg| routes(cfg, &origins)));
    cfg.configure(|cfg| routes(cfg, &origins));
    cfg.default_service(web::to(answer::no_route));
}

fn routes(cfg: &mut web::ServiceConfig, origins: &[String]) {
    // Pages of ours, for no app.
    cfg.configure(pages::routes);
    cfg.configure(sign_in::routes);
    cfg.configure(|cfg| access_grants::routes(cfg, origins));
    cfg.configure(|cfg| redemptions::routes(cfg, origins));
    // For operators' own tools, for no app.
    cfg.configure(revocations::routes);
    cfg.configure(dead_letters::routes);
    cfg.configure(quarantine::routes);
    cfg.configure(audit::routes);
    cfg.configure(records::routes);
    cfg.configure(drift::routes);
    // For other servers.
    cfg.configure(crate::notifications::routes);
    cfg.configure(|cfg| crate::fhir::routes(cfg, origins));
}
