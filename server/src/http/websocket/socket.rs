//! One web socket: what its client says, its signs of life, and how it ends. Decides nothing of what may be heard: that is
//! asked of `app`.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_http::ws::CloseCode;
use handoff_domain::audit::Context;
use handoff_domain::ids::{ActorRef, SubscriptionId};
use handoff_domain::reason::Reason;
use handoff_domain::time::Timestamp;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::frames::{self, Came, Ending, Incoming, Offence, Outgoing, Unsent};
use super::places::Place;
use super::telling::{Desk, Style};
use crate::app::{AppError, Caller, Class};
use crate::http::HttpState;
use crate::http::connection::Connection;
use crate::http::request::{look_at, record_refusal};
use crate::telemetry::websockets as metrics;

/// How often it is looked after a socket.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Frames of the protocol itself that a client may send in a minute.
const CONTROL_FRAMES: usize = 120;
const MINUTE: Duration = Duration::from_mins(1);

/// Who opened a socket with an access token.
pub(super) struct Guest {
    pub(super) caller: Caller,
    /// Until when the token is good.
    pub(super) until: Timestamp,
}

/// A socket.
pub(super) struct Socket {
    pub(super) state: HttpState,
    pub(super) context: Context,
    pub(super) guest: Option<Guest>,
    pub(super) connection: Option<Arc<Connection>>,
    pub(super) opened: Instant,
    /// How long a client may take nothing.
    pub(super) patience: Duration,
    /// How long it may take to close its side.
    pub(super) farewell: Duration,
}

/// How a socket ends.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// By us, with this close frame; the word is for the metric.
    Closed(CloseCode, &'static str, String),
    /// By the client, as it should.
    Left,
    /// The client is gone.
    Gone,
}

impl End {
    pub(super) fn closed(code: CloseCode, word: &'static str, why: impl Into<String>) -> Self {
        Self::Closed(code, word, why.into())
    }

    /// The client may not have what it asks for.
    pub(super) fn policy(word: &'static str, why: impl Into<String>) -> Self {
        Self::closed(CloseCode::Policy, word, why)
    }

    fn slow() -> Self {
        let why = "nothing was taken for too long; fetch the rest by $events";
        Self::closed(CloseCode::Again, "slow", why)
    }

    const fn word(&self) -> &'static str {
        match self {
            Self::Closed(_, word, _) => word,
            Self::Left => "left",
            Self::Gone => "gone",
        }
    }
}

impl From<Unsent> for End {
    fn from(unsent: Unsent) -> Self {
        match unsent {
            Unsent::Slow => Self::slow(),
            Unsent::Gone => Self::Gone,
        }
    }
}

impl From<Offence> for End {
    fn from(offence: Offence) -> Self {
        let (code, word, why) = match offence {
            Offence::TooLong => (CloseCode::Size, "too-large", "a message is at most 4 KiB"),
            Offence::NotText => (CloseCode::Unsupported, "not-text", "messages are text"),
            Offence::NotUtf8 => (CloseCode::Invalid, "not-text", "messages are UTF-8"),
            Offence::Protocol => (CloseCode::Protocol, "protocol", "that is no frame of RFC 6455"),
        };
        Self::closed(code, word, why)
    }
}

/// Serves a socket to its end.
pub(super) async fn serve(
    socket: Socket,
    mut place: Place,
    mut incoming: Incoming,
    out: Outgoing,
    ending: Ending,
) {
    let desk = Desk::new(&socket, out);
    let end = tokio::select! {
        end = listen(&socket, &desk, &mut place, &mut incoming) => end,
        end = desk.tell() => end,
    };
    // Nothing more is heard from here on.
    drop(desk);
    metrics::closed(end.word());
    let seconds = socket.opened.elapsed().as_secs();
    tracing::info!(correlation_id = %socket.context.correlation, end = end.word(), seconds, "web socket ended");
    match end {
        End::Gone => {}
        End::Left => ending.say(frames::close(CloseCode::Normal, "")),
        End::Closed(code, _, why) => {
            ending.say(frames::close(code, &why));
            // Its answer, or its end; what it says instead is not listened to.
            let farewell =
                async { while !matches!(incoming.next().await, None | Some(Err(_) | Ok(Came::Close))) {} };
            let _answered = timeout(socket.farewell, farewell).await;
        }
    }
}

/// The moments of the last minute.
struct Lately(VecDeque<Instant>);

impl Lately {
    /// One more now; answers whether those were too many.
    fn over(&mut self, most: usize) -> bool {
        let now = Instant::now();
        while self.0.front().is_some_and(|at| now.duration_since(*at) >= MINUTE) {
            self.0.pop_front();
        }
        self.0.push_back(now);
        self.0.len() > most
    }
}

async fn listen(socket: &Socket, desk: &Desk<'_>, place: &mut Place, incoming: &mut Incoming) -> End {
    let limits = *socket.state.sockets.limits();
    let mut stopping = socket.state.sockets.stopping();
    let mut ticks = interval(LOOK_EVERY.min(limits.ping));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut messages, mut control) = (Lately(VecDeque::new()), Lately(VecDeque::new()));
    let alive = Cell::new(Instant::now());
    let mut asked = Instant::now();
    loop {
        let came = tokio::select! {
            came = incoming.next() => came,
            _ = stopping.wait_for(|stopping| *stopping) => {
                return End::closed(CloseCode::Away, "stopping", "the server is about to stop; connect again");
            }
            () = desk.gone() => return End::Gone,
            _ = ticks.tick() => {
                if let Some(end) = look_after(socket, desk, alive.get()) {
                    return end;
                }
                if asked.elapsed() >= limits.ping {
                    asked = Instant::now();
                    desk.offer(frames::ping());
                }
                continue;
            }
        };
        match came {
            None => return End::Gone,
            Some(Err(offence)) => return offence.into(),
            Some(Ok(Came::Close)) => return End::Left,
            Some(Ok(Came::Text(text))) => {
                if messages.over(limits.messages_per_minute) {
                    let most = limits.messages_per_minute;
                    return End::policy(
                        "too-many-messages",
                        format!("more than {most} messages in a minute"),
                    );
                }
                if let Err(end) = obey(socket, desk, place, &text).await {
                    return end;
                }
            }
            Some(Ok(frame)) => {
                if control.over(CONTROL_FRAMES) {
                    let why = format!("more than {CONTROL_FRAMES} pings and pongs in a minute");
                    return End::policy("too-many-messages", why);
                }
                match frame {
                    Came::Ping(data) => desk.offer(frames::pong(data)),
                    _ => alive.set(Instant::now()),
                }
            }
        }
    }
}

/// Why a socket has to end by now, if it has to.
fn look_after(socket: &Socket, desk: &Desk<'_>, alive: Instant) -> Option<End> {
    let limits = socket.state.sockets.limits();
    let now = Instant::now();
    let blocked = socket
        .connection
        .as_ref()
        .and_then(|connection| connection.blocked_for(now));
    if blocked.is_some_and(|blocked| blocked >= socket.patience) {
        return Some(End::slow());
    }
    if now.duration_since(alive) > limits.pong {
        let why = "no pong came for too long";
        return Some(End::policy("no-pong", why));
    }
    if !desk.was_bound() && now.duration_since(socket.opened) > limits.first_bind {
        return Some(End::policy("unbound", "nothing was bound in time"));
    }
    if desk.has_pings() {
        return no_longer(socket);
    }
    None
}

/// Why who opened the socket may bind nothing by its access token, and what is bound by it ends.
fn no_longer(socket: &Socket) -> Option<End> {
    let Some(guest) = &socket.guest else {
        let why = "bind needs an access token in the request for the web socket; or use bind-with-token";
        return Some(End::policy("refused", why));
    };
    let app = &socket.state.app;
    if app.clock.now() >= guest.until {
        return Some(End::policy(
            "token-expired",
            "the access token has expired; connect with a fresh one",
        ));
    }
    let standing = app.standing.of(guest.caller.tenant());
    standing.on_caller(&guest.caller.principal).map(|reason| {
        let why = crate::app::error::explain(reason);
        End::policy("refused", why)
    })
}

/// Does what a message says.
async fn obey(socket: &Socket, desk: &Desk<'_>, place: &mut Place, text: &str) -> Result<(), End> {
    let (word, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    let rest = rest.trim();
    match word {
        "bind" => bind(socket, desk, place, rest).await,
        "bind-with-token" => bind_with_token(socket, desk, place, rest).await,
        _ => {
            desk.say("error: messages are `bind ID` and `bind-with-token TOKEN`")
                .await?;
            Ok(())
        }
    }
}

async fn bind(socket: &Socket, desk: &Desk<'_>, place: &mut Place, id: &str) -> Result<(), End> {
    if let Some(end) = no_longer(socket) {
        return Err(desk.refuse(end).await);
    }
    let Some(guest) = &socket.guest else {
        return Err(End::policy("refused", "not authorized"));
    };
    let Ok(id) = SubscriptionId::parse(id) else {
        return Err(desk.refuse(refused(&AppError::not_found())).await);
    };
    desk.room_for(&[&id])?;
    hears(place, socket, &guest.caller.principal.actor)?;
    let bound = match socket.state.app.bind_as(&guest.caller, id).await {
        Ok(bound) => bound,
        Err(error) => return Err(desk.refuse(refused(&error)).await),
    };
    desk.bind(bound, Style::Pings).await
}

async fn bind_with_token(
    socket: &Socket,
    desk: &Desk<'_>,
    place: &mut Place,
    token: &str,
) -> Result<(), End> {
    let state = &socket.state;
    let context = Context {
        now: state.app.clock.now(),
        ..socket.context.clone()
    };
    // A wrong one counts as an access token that is refused does.
    let trial = match look_at(state, &context, None) {
        Ok(trial) => trial,
        Err(too_many) => {
            let refusal = record_refusal(state, &context, too_many).await;
            return Err(desk.refuse(refused(&refusal)).await);
        }
    };
    let bound = match state.app.bind_by_token(&context, token).await {
        Ok(bound) => {
            trial.forgive();
            bound
        }
        Err(error) if error.reason == Reason::TokenInvalid => {
            drop(trial);
            let refusal = record_refusal(state, &context, error).await;
            return Err(desk.refuse(refused(&refusal)).await);
        }
        Err(error) => {
            trial.forgive();
            return Err(desk.refuse(refused(&error)).await);
        }
    };
    let ids: Vec<&SubscriptionId> = bound.iter().map(|one| &one.subscription.id).collect();
    desk.room_for(&ids)?;
    for one in bound {
        hears(place, socket, &one.subscription.created_by)?;
        desk.bind(one, Style::Bundles).await?;
    }
    Ok(())
}

fn hears(place: &mut Place, socket: &Socket, creator: &ActorRef) -> Result<(), End> {
    place.hears(&socket.context.tenant, creator).map_err(|_| {
        let why = "as many web sockets are open as one subscriber may have; close some first";
        End::closed(CloseCode::Again, "creator", why)
    })
}

/// How a socket ends whose client was refused something.
fn refused(error: &AppError) -> End {
    match error.class {
        Class::Unavailable | Class::NoRoom | Class::Conflict | Class::RateLimited { .. } => {
            End::closed(CloseCode::Again, "unavailable", error.text.as_str())
        }
        Class::Internal => {
            let cause = error.cause.as_deref().unwrap_or(error.reason.as_str());
            tracing::error!(cause, "a web socket can't be served");
            End::closed(CloseCode::Error, "unavailable", error.text.as_str())
        }
        _ => End::policy("refused", error.text.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_within_a_minute_is_counted() {
        let mut lately = Lately(VecDeque::new());
        assert!((0..20).all(|_| !lately.over(20)));
        assert!(lately.over(20));
    }
}
