//! Handoff links: looked at, redeemed, and asked for anew. A link alone is not identity: whoever holds it must also be
//! its grantee, and without its secret nothing is told, not even that it exists.

use handoff_domain::audit::{Event, Outcome};
use handoff_domain::grant::Grant;
use handoff_domain::ids::{Handle, RedemptionId};
use handoff_domain::ports::{Kind, Tx};
use handoff_domain::reason::Reason;
use handoff_domain::time::Timestamp;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::caps::Reach;
use super::redemption_scene::Scene;
use super::{App, AppError, Caller, Class, Cuts, Scope};

/// What shows that somebody holds a link.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum LinkKey {
    /// Its secret, as its digest.
    Secret([u8; 32]),
    /// It was shown before, by the same session.
    Shown,
}

impl LinkKey {
    /// The key that a secret is.
    pub fn of(secret: &str) -> Self {
        Self::Secret(Sha256::digest(secret.as_bytes()).into())
    }

    fn opens(self, grant: &Grant) -> bool {
        match self {
            // Comparing digests leaks nothing of the secret.
            Self::Secret(digest) => grant.secret_hash == Some(digest),
            Self::Shown => true,
        }
    }
}

/// What a person sees of a link before it is redeemed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkView {
    /// What the document is called: its description, title or type.
    pub title: Option<String>,
    /// What type it is, where that is not its title.
    pub kind: Option<String>,
    /// Its media type.
    pub content_type: String,
    /// Its length in bytes.
    pub size: u64,
    /// Who asks.
    pub requester: Option<String>,
    /// How often it may still be used.
    pub uses_left: u32,
    /// Until when.
    pub until: Option<Timestamp>,
}

impl App {
    /// What a link leads to. Takes nothing; that it was opened is recorded.
    pub async fn look_at_link(
        &self,
        caller: &Caller,
        handle: Handle,
        key: LinkKey,
    ) -> Result<LinkView, AppError> {
        let scope = self.scope(caller);
        let reach = self.demand_content(caller).await?;
        self.write(caller.tenant(), move |tx| {
            let scene = open(tx, &scope, &reach, &handle, key)?;
            match scene.unanswered(tx, &scope)? {
                Some(_) => scene.may_resume(&scope)?,
                None => scene.pass(&scope)?,
            }
            tx.record(
                scope.tenant(),
                scope
                    .row(Event::LinkOpened, Outcome::Success, Reason::Permitted)
                    .about(scene.about(None)),
            );
            Ok((view(tx, &scope, &scene)?, Cuts::none()))
        })
        .await
    }

    /// Redeems a link: takes the use and opens a redemption, whose content is then fetched by its id.
    pub async fn redeem_link(
        &self,
        caller: &Caller,
        handle: Handle,
        key: LinkKey,
    ) -> Result<RedemptionId, AppError> {
        let scope = self.scope(caller);
        let reach = self.demand_content(caller).await?;
        let id = self.fresh_redemption()?;
        self.write(caller.tenant(), move |tx| {
            redeem(tx, &scope, &reach, &id, &handle, key)
        })
        .await
    }
}

/// The scene of a link, for its grantee alone.
pub(super) fn open(
    tx: &mut dyn Tx,
    scope: &Scope,
    reach: &Reach,
    handle: &Handle,
    key: LinkKey,
) -> Result<Scene, AppError> {
    let unknown = || {
        AppError::new(
            Class::NotFound,
            Reason::LinkUnknown,
            super::error::explain(Reason::LinkUnknown),
        )
        .recorded(
            scope
                .row(Event::RedemptionDenied, Outcome::Denied, Reason::LinkUnknown)
                .detail("handle", handle.as_str()),
        )
    };
    let grant = tx.grant_by_handle(scope.tenant(), handle)?.ok_or_else(unknown)?;
    if !key.opens(&grant) {
        return Err(unknown());
    }
    let binary = tx.binary(scope.tenant(), &grant.binary)?.ok_or_else(unknown)?;
    let task = tx.task(scope.tenant(), &grant.task)?.ok_or_else(unknown)?;
    let mut scene = Scene::lock(tx, scope, &task.id, binary)?;
    // The link opens its own grant, not a newer one.
    scene.grant = tx.grant(scope.tenant(), &grant.id)?;
    if grant.grantee() != Some(&scope.caller.principal.actor) {
        return Err(scene.refuse(scope, Reason::NotGrantee));
    }
    scene.check_reach(tx, scope, reach)?;
    Ok(scene)
}

fn redeem(
    tx: &mut dyn Tx,
    scope: &Scope,
    reach: &Reach,
    id: &RedemptionId,
    handle: &Handle,
    key: LinkKey,
) -> Result<(RedemptionId, Cuts), AppError> {
    let scene = open(tx, scope, reach, handle, key)?;
    let opened = |id: &RedemptionId| {
        scope
            .row(Event::LinkOpened, Outcome::Success, Reason::Permitted)
            .about(scene.about(Some(id)))
    };
    // Asked again because the answer was lost: the same use, not another.
    if let Some(open) = scene.unanswered(tx, scope)? {
        scene.may_resume(scope)?;
        tx.record(scope.tenant(), opened(&open.id));
        return Ok((open.id, Cuts::none()));
    }
    scene.pass(scope)?;
    tx.record(scope.tenant(), opened(id));
    let redemption = scene.take_use(tx, scope, id)?;
    Ok((redemption.id, Cuts::none()))
}

/// A stored resource as it stands; nothing where there is none.
pub(super) fn stored(tx: &mut dyn Tx, scope: &Scope, kind: Kind, id: &str) -> Result<Value, AppError> {
    let version = tx.current(scope.tenant(), kind, id)?;
    Ok(version
        .and_then(|version| serde_json::from_slice(&version.body).ok())
        .unwrap_or_default())
}

/// What whoever asks by a Task is called.
pub(super) fn requester(task: &Value) -> Option<String> {
    text(task, "/requester/display").or_else(|| text(task, "/requester/reference"))
}

fn view(tx: &mut dyn Tx, scope: &Scope, scene: &Scene) -> Result<LinkView, AppError> {
    let document = match &scene.document {
        Some(document) => stored(tx, scope, Kind::Document, document.id.as_str())?,
        None => Value::Null,
    };
    let task = stored(tx, scope, Kind::Task, scene.task.id.as_str())?;
    let kind = text(&document, "/type/text").or_else(|| {
        let codings = document.pointer("/type/coding")?.as_array()?;
        codings.iter().find_map(|coding| text(coding, "/display"))
    });
    let title = text(&document, "/description").or_else(|| {
        let contents = document.pointer("/content")?.as_array()?;
        let url = format!("Binary/{}", scene.binary.id);
        let is_ours = |content: &&Value| text(content, "/attachment/url").is_some_and(|u| u == url);
        text(contents.iter().find(is_ours)?, "/attachment/title")
    });
    Ok(LinkView {
        kind: kind.clone().filter(|_| title.is_some()),
        title: title.or(kind),
        content_type: scene.binary.content_type.clone(),
        size: scene.binary.size,
        requester: requester(&task),
        uses_left: scene
            .grant
            .as_ref()
            .map_or(0, |g| g.max_uses.saturating_sub(g.uses)),
        until: scene.grant.as_ref().and_then(Grant::expires_at),
    })
}

/// The text at a JSON pointer, if it says anything.
fn text(value: &Value, pointer: &str) -> Option<String> {
    let text = value.pointer(pointer)?.as_str()?.trim();
    (!text.is_empty()).then(|| text.to_owned())
}
