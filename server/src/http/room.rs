//! How much of the server's memory and descriptors the requests of all clients may hold at once: downloads and uploads
//! of content, and bodies that are kept in memory. What there is no room for is refused at once; nobody queues.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use handoff_domain::reason::Reason;

use crate::app::{AppError, Class};
use crate::config::Clients;
use crate::telemetry::clients as metrics;

/// How many exports of the audit there may be at once.
const MOST_EXPORTS: usize = 4;

/// A number that has a most.
struct Level {
    now: AtomicUsize,
    most: usize,
}

impl Level {
    const fn new(most: usize) -> Self {
        Self {
            now: AtomicUsize::new(0),
            most,
        }
    }

    /// Raises it, unless that were too much.
    fn rise(&self, by: usize) -> bool {
        self.now
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| {
                now.checked_add(by).filter(|sum| *sum <= self.most)
            })
            .is_ok()
    }

    fn fall(&self, by: usize) {
        self.now.fetch_sub(by, Ordering::AcqRel);
    }

    fn present(&self) -> (usize, usize) {
        (self.now.load(Ordering::Acquire), self.most)
    }
}

/// The room there is.
pub struct Room {
    downloads: Level,
    uploads: Level,
    exports: Level,
    buffered: Level,
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room").finish_non_exhaustive()
    }
}

impl Room {
    /// All of it free.
    pub const fn new(clients: &Clients) -> Self {
        Self {
            downloads: Level::new(clients.max_downloads),
            uploads: Level::new(clients.max_uploads),
            exports: Level::new(MOST_EXPORTS),
            buffered: Level::new(clients.max_buffered),
        }
    }

    /// Downloads under way, and how many there may be.
    pub fn downloads(&self) -> (usize, usize) {
        self.downloads.present()
    }

    /// Uploads under way, and how many there may be.
    pub fn uploads(&self) -> (usize, usize) {
        self.uploads.present()
    }

    /// Bytes of bodies in memory, and how many there may be.
    pub fn buffered(&self) -> (usize, usize) {
        self.buffered.present()
    }

    /// Room for a download; none is needed for a HEAD.
    pub fn download_unless(self: &Arc<Self>, head: bool) -> Result<Option<Taken>, AppError> {
        if head {
            return Ok(None);
        }
        self.transfer(Kind::Download, "download").map(Some)
    }

    /// Room for an upload.
    pub fn upload(self: &Arc<Self>) -> Result<Taken, AppError> {
        self.transfer(Kind::Upload, "upload")
    }

    /// Room for an export of the audit, which holds some megabytes.
    pub fn export(self: &Arc<Self>) -> Result<Taken, AppError> {
        self.transfer(Kind::Export, "export")
    }

    fn transfer(self: &Arc<Self>, kind: Kind, what: &'static str) -> Result<Taken, AppError> {
        let mut taken = Taken {
            room: Arc::clone(self),
            kind,
            amount: 0,
        };
        if taken.more(1) {
            return Ok(taken);
        }
        metrics::transfer_refused(what);
        Err(no_room(format!(
            "as many {what}s are under way as this server takes at once; try again shortly"
        )))
    }

    /// Room for a body that is to be kept in memory; none yet.
    pub fn body(self: &Arc<Self>) -> Taken {
        Taken {
            room: Arc::clone(self),
            kind: Kind::Body,
            amount: 0,
        }
    }
}

/// What is told of a body for which there is no room.
pub fn no_room_for_body() -> AppError {
    metrics::body_refused("no-room");
    no_room("as many bodies of requests are under way as this server takes at once; try again shortly")
}

fn no_room(text: impl Into<String>) -> AppError {
    AppError::new(Class::Unavailable, Reason::RateLimited, text)
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Download,
    Upload,
    Export,
    Body,
}

/// Room that is taken, and free again when this is dropped.
#[derive(Debug)]
pub struct Taken {
    room: Arc<Room>,
    kind: Kind,
    amount: usize,
}

impl Taken {
    /// Takes more, if there is more.
    pub fn more(&mut self, by: usize) -> bool {
        let fits = self.level().rise(by);
        if fits {
            self.amount = self.amount.saturating_add(by);
        }
        fits
    }

    fn level(&self) -> &Level {
        match self.kind {
            Kind::Download => &self.room.downloads,
            Kind::Upload => &self.room.uploads,
            Kind::Export => &self.room.exports,
            Kind::Body => &self.room.buffered,
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.level().fall(self.amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room() -> Arc<Room> {
        Arc::new(Room::new(&Clients {
            max_downloads: 2,
            max_uploads: 1,
            max_buffered: 100,
            ..Clients::default()
        }))
    }

    #[test]
    fn exports_are_few_and_leave_the_room_of_bodies() {
        let room = room();
        let exports: Vec<Taken> = (0..MOST_EXPORTS).map(|_| room.export().unwrap()).collect();
        assert_eq!(room.export().unwrap_err().class, Class::Unavailable);
        assert!(room.body().more(100));
        drop(exports);
        assert!(room.export().is_ok());
    }

    #[test]
    fn there_is_room_for_so_many_transfers_and_again_when_one_ends() {
        let room = room();
        let first = room.download_unless(false).unwrap();
        let _second = room.download_unless(false).unwrap();
        let _other = room.upload().unwrap();
        assert!(room.download_unless(true).unwrap().is_none());
        let refused = room.download_unless(false).unwrap_err();
        assert_eq!(
            (refused.class, refused.reason),
            (Class::Unavailable, Reason::RateLimited)
        );
        assert!(room.upload().is_err());
        assert_eq!(room.downloads(), (2, 2));
        drop(first);
        assert!(room.download_unless(false).is_ok());
    }

    #[test]
    fn bodies_share_the_memory_there_is_for_them() {
        let room = room();
        let (mut one, mut other) = (room.body(), room.body());
        assert!(one.more(60));
        assert!(!other.more(60));
        assert!(other.more(40));
        assert_eq!(room.buffered(), (100, 100));
        drop(one);
        assert_eq!(room.buffered(), (40, 100));
        assert!(other.more(60));
    }
}
