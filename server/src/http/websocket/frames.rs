//! Frames of a web socket (RFC 6455), either way. What a client sends is short text and nothing else; what it is sent
//! waits here in one place, and no more than that. Knows nothing of what is said.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_http::ws::{CloseCode, CloseReason, Codec, Frame, Item, Message, ProtocolError};
use actix_web::dev::Payload;
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::codec::{Decoder as _, Encoder as _};

use crate::http::room::Taken;

/// The longest message of a client.
pub(super) const LONGEST: usize = 4 * 1024;
/// The longest head of a frame that is masked.
const LONGEST_HEAD: usize = 14;
/// How many frames of the protocol itself wait for a client.
const CONTROL_FRAMES: usize = 4;
/// The longest reason of a close frame.
const LONGEST_REASON: usize = 123;

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// A whole message.
    Text(String),
    /// To be answered with the same.
    Ping(Bytes),
    /// A sign of life.
    Pong,
    /// The client ends it.
    Close,
}

/// What a client must not send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offence {
    /// A message that is too long.
    TooLong,
    /// Something else than text.
    NotText,
    /// Text that is none.
    NotUtf8,
    /// What is no frame, or not in its place.
    Protocol,
}

/// What a client sends.
pub(super) struct Incoming {
    payload: Payload,
    codec: Codec,
    buffer: BytesMut,
    /// The message that is coming in parts.
    parts: Option<BytesMut>,
}

impl Incoming {
    pub(super) fn new(payload: Payload) -> Self {
        Self {
            payload,
            codec: Codec::new().max_size(LONGEST),
            buffer: BytesMut::new(),
            parts: None,
        }
    }

    /// What comes next; `None` when the client is gone. May be dropped while it waits.
    pub(super) async fn next(&mut self) -> Option<Result<Came, Offence>> {
        loop {
            match self.decode() {
                Ok(Some(came)) => return Some(Ok(came)),
                Ok(None) => {}
                Err(offence) => return Some(Err(offence)),
            }
            let more = self.payload.next().await?.ok()?;
            self.buffer.extend_from_slice(&more);
        }
    }

    fn decode(&mut self) -> Result<Option<Came>, Offence> {
        loop {
            let frame = self.codec.decode(&mut self.buffer).map_err(|error| match error {
                ProtocolError::Overflow => Offence::TooLong,
                _ => Offence::Protocol,
            })?;
            let Some(frame) = frame else {
                // The codec looks at the length of a frame when all of it is there.
                return if self.buffer.len() > LONGEST.saturating_add(LONGEST_HEAD) {
                    Err(Offence::TooLong)
                } else {
                    Ok(None)
                };
            };
            let came = match frame {
                Frame::Text(text) => Some(Came::Text(text_of(&text)?)),
                Frame::Binary(_) | Frame::Continuation(Item::FirstBinary(_)) => {
                    return Err(Offence::NotText);
                }
                Frame::Continuation(Item::FirstText(part)) => {
                    self.parts = Some(BytesMut::from(&part[..]));
                    None
                }
                Frame::Continuation(Item::Continue(part)) => {
                    self.add(&part)?;
                    None
                }
                Frame::Continuation(Item::Last(part)) => {
                    self.add(&part)?;
                    let whole = self.parts.take().unwrap_or_default();
                    Some(Came::Text(text_of(&whole)?))
                }
                Frame::Ping(data) => Some(Came::Ping(data)),
                Frame::Pong(_) => Some(Came::Pong),
                Frame::Close(_) => Some(Came::Close),
            };
            if let Some(came) = came {
                return Ok(Some(came));
            }
        }
    }

    fn add(&mut self, part: &[u8]) -> Result<(), Offence> {
        let parts = self.parts.get_or_insert_default();
        if parts.len().saturating_add(part.len()) > LONGEST {
            return Err(Offence::TooLong);
        }
        parts.extend_from_slice(part);
        Ok(())
    }
}

fn text_of(bytes: &[u8]) -> Result<String, Offence> {
    std::str::from_utf8(bytes)
        .map(str::to_owned)
        .map_err(|_| Offence::NotUtf8)
}

/// Frames on their way, and the room that they take.
struct Piece {
    bytes: Bytes,
    _taken: Option<Taken>,
}

/// Why nothing more can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unsent {
    /// The client takes nothing.
    Slow,
    /// The client is gone.
    Gone,
}

/// Where to put what a client is sent.
pub(super) struct Outgoing {
    pieces: mpsc::Sender<Piece>,
    control: mpsc::Sender<Bytes>,
    patience: Duration,
}

impl Outgoing {
    /// Sends frames; waits until those before are under way, and no longer than is patient.
    pub(super) async fn send(&self, bytes: Bytes, taken: Option<Taken>) -> Result<(), Unsent> {
        let piece = Piece { bytes, _taken: taken };
        match timeout(self.patience, self.pieces.send(piece)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Unsent::Gone),
            Err(_) => Err(Unsent::Slow),
        }
    }

    /// Sends a frame of the protocol itself, before what waits. Where several of them wait nobody has need of more.
    pub(super) fn offer(&self, frame: Bytes) {
        let _enough = self.control.try_send(frame);
    }

    /// Waits until nobody takes anything any more.
    pub(super) async fn gone(&self) {
        self.pieces.closed().await;
    }
}

/// The end of what a client is sent: a last frame behind all others, and then the end of the connection when this is
/// dropped.
pub(super) struct Ending {
    last: Rc<RefCell<Option<Bytes>>>,
    _open: oneshot::Sender<()>,
}

impl Ending {
    /// Says why. What was sent before still arrives first.
    pub(super) fn say(&self, frame: Bytes) {
        self.last.replace(Some(frame));
    }
}

/// What a client is sent, as the body of the answer to its upgrade.
pub(super) struct Body {
    pieces: mpsc::Receiver<Piece>,
    control: mpsc::Receiver<Bytes>,
    last: Rc<RefCell<Option<Bytes>>>,
    open: oneshot::Receiver<()>,
}

/// Both ends of what a client is sent; who waits for longer than `patience` for room has a slow client.
pub(super) fn outgoing(patience: Duration) -> (Outgoing, Ending, Body) {
    let (sender, pieces) = mpsc::channel(1);
    let (first, control) = mpsc::channel(CONTROL_FRAMES);
    let (held, open) = oneshot::channel();
    let last = Rc::new(RefCell::new(None));
    let out = Outgoing {
        pieces: sender,
        control: first,
        patience,
    };
    let ending = Ending {
        last: Rc::clone(&last),
        _open: held,
    };
    let body = Body {
        pieces,
        control,
        last,
        open,
    };
    (out, ending, body)
}

impl Stream for Body {
    type Item = Result<Bytes, std::convert::Infallible>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if let Poll::Ready(Some(frame)) = this.control.poll_recv(cx) {
            return Poll::Ready(Some(Ok(frame)));
        }
        if let Some(piece) = ready!(this.pieces.poll_recv(cx)) {
            return Poll::Ready(Some(Ok(piece.bytes)));
        }
        if let Some(last) = this.last.take() {
            return Poll::Ready(Some(Ok(last)));
        }
        // Nothing is ever said by it; it ends.
        let _end = ready!(Pin::new(&mut this.open).poll(cx));
        Poll::Ready(None)
    }
}

fn encoded(message: Message, bytes: &mut BytesMut) {
    // Fails for parts of messages out of place, and there are none.
    let _whole = Codec::new().encode(message, bytes);
}

/// One text as a frame.
pub(super) fn text(text: impl Into<String>) -> Bytes {
    let mut bytes = BytesMut::new();
    encoded(Message::Text(text.into().into()), &mut bytes);
    bytes.freeze()
}

/// The same text several times, a frame each.
pub(super) fn repeated(text: &str, times: usize) -> Bytes {
    let mut bytes = BytesMut::new();
    for _ in 0..times {
        encoded(Message::Text(text.to_owned().into()), &mut bytes);
    }
    bytes.freeze()
}

/// A question for a sign of life.
pub(super) fn ping() -> Bytes {
    let mut bytes = BytesMut::new();
    encoded(Message::Ping(Bytes::new()), &mut bytes);
    bytes.freeze()
}

/// The answer to one.
pub(super) fn pong(data: Bytes) -> Bytes {
    let mut bytes = BytesMut::new();
    encoded(Message::Pong(data), &mut bytes);
    bytes.freeze()
}

/// The last frame, and why.
pub(super) fn close(code: CloseCode, why: &str) -> Bytes {
    let mut end = why.len().min(LONGEST_REASON);
    while !why.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    let reason = CloseReason {
        code,
        description: why.get(..end).map(str::to_owned),
    };
    let mut bytes = BytesMut::new();
    encoded(Message::Close(Some(reason)), &mut bytes);
    bytes.freeze()
}

#[cfg(test)]
mod tests;
