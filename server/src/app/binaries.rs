//! Taking content in: bytes go to the blob store first, hashed on the way, and become a Binary in the same
//! transaction as whatever names them. Content that no transaction took is removed again.

use bytes::Bytes;
use handoff_domain::access::{Action, Object, Relation, Role};
use handoff_domain::audit::{About, Event, Outcome};
use handoff_domain::document::StoredBinary;
use handoff_domain::ids::BinaryId;
use handoff_domain::ports::{ByteStream, StoreError, Tx};
use handoff_domain::reason::Reason;
use handoff_domain::retention::{Cause, Disposal};
use handoff_domain::scan::Scan;
use handoff_domain::scopes::Interaction;
use serde_json::json;

use super::{App, AppError, Caller, Class, Cuts, Scope, Stored, disposal, holds};

/// Bytes that are in the blob store, and not yet known to the database.
#[derive(Debug, Clone)]
pub struct Ingested {
    /// The record that the transaction will insert.
    pub binary: StoredBinary,
    /// SHA-256 of its blocks.
    pub blocks: Vec<[u8; 32]>,
}

impl App {
    /// Stores content and creates its Binary.
    pub async fn create_binary(
        &self,
        caller: &Caller,
        content_type: String,
        security_context: Option<String>,
        content: ByteStream,
        limit: u64,
    ) -> Result<Stored, AppError> {
        let (app, caller) = (self.clone(), caller.clone());
        self.to_the_end(async move {
            app.demand(&app.scope(&caller), "Binary", Interaction::Create)
                .await?;
            let id = app.fresh_binary()?;
            let ingested = app
                .ingest(&caller, id, content_type, security_context, content, limit)
                .await?;
            let scope = app.scope(&caller);
            let unit = ingested.clone();
            let answer = app
                .write(caller.tenant(), move |tx| {
                    insert(tx, &scope, &unit)?;
                    Ok((stored(&unit.binary), Cuts::none()))
                })
                .await;
            app.discard_unless(&answer, std::slice::from_ref(&ingested)).await;
            answer
        })
        .await
    }

    /// An id that no Binary has. Blobs are named by it, and Azure spreads those that are named at random.
    pub fn fresh_binary(&self) -> Result<BinaryId, AppError> {
        BinaryId::parse(self.entropy.fresh_id()).map_err(|e| AppError::bad(e.to_string()))
    }

    /// Stores content in the blob store as the Binary `id`, after asking whether this caller may bring any.
    pub async fn ingest(
        &self,
        caller: &Caller,
        id: BinaryId,
        content_type: String,
        security_context: Option<String>,
        content: ByteStream,
        limit: u64,
    ) -> Result<Ingested, AppError> {
        let scope = self.scope(caller);
        if let Err(error) = scope.permit(
            Action::BinaryCreate,
            Relation::default(),
            Object::Tenant,
            Event::BinaryCreated,
        ) {
            return Err(self.record_denial(caller.tenant(), error).await);
        }
        let key = format!("{}/{id}", caller.tenant());
        let uploaded = self.blobs.put(&key, &content_type, content, limit).await?;
        let binary = StoredBinary {
            id,
            created: self.clock.now(),
            uploaded_by: caller.principal.actor.clone(),
            document: None,
            content_type,
            security_context,
            size: uploaded.size,
            sha1: uploaded.sha1,
            sha256: uploaded.sha256,
            pin: uploaded.pin,
            deleted: false,
        };
        Ok(Ingested {
            binary,
            blocks: uploaded.blocks,
        })
    }

    /// As [`App::ingest`], for bytes at hand.
    pub async fn ingest_bytes(
        &self,
        caller: &Caller,
        id: BinaryId,
        content_type: String,
        security_context: Option<String>,
        bytes: Vec<u8>,
    ) -> Result<Ingested, AppError> {
        let content: ByteStream = Box::pin(futures_util::stream::iter([Ok(Bytes::from(bytes))]));
        self.ingest(
            caller,
            id,
            content_type,
            security_context,
            content,
            self.settings.max_inline,
        )
        .await
    }

    /// Tells whoever scans content that the transaction took some in, or removes it again where that surely did not. Where the commit's answer was
    /// lost it may have: content without a record does no harm, a record without content would.
    pub async fn discard_unless<T>(&self, answer: &Result<T, AppError>, ingested: &[Ingested]) {
        let Err(error) = answer else {
            if !ingested.is_empty() {
                self.came.notify_one();
            }
            return;
        };
        if matches!(
            error.store,
            Some(StoreError::Unavailable(_) | StoreError::Broken(_))
        ) {
            return;
        }
        for one in ingested {
            self.discard(one).await;
        }
    }

    /// Removes content that no transaction took. Failing to is logged.
    pub async fn discard(&self, ingested: &Ingested) {
        if let Err(error) = self.blobs.delete(&ingested.binary.pin).await {
            tracing::warn!(binary = %ingested.binary.id, %error, "content without a record stays behind");
        }
    }

    /// Deletes a Binary that no live grant names. Content of a document stays in the blob store for as long as the document's is
    /// kept; other content is disposed of at once.
    pub async fn delete_binary(&self, caller: &Caller, id: BinaryId) -> Result<(), AppError> {
        let scope = self.scope(caller);
        let marked = self
            .write(caller.tenant(), move |tx| delete(tx, &scope, &id))
            .await?;
        if let Some(marked) = marked
            && let Err(error) = disposal::carry_out(self, caller.tenant(), &marked).await
        {
            tracing::warn!(binary = %marked.binary, reason = %error.reason, "deleted content is still in the blob store; it is tried again");
        }
        Ok(())
    }
}

/// Inserts an ingested Binary and records it.
pub fn insert(tx: &mut dyn Tx, scope: &Scope, ingested: &Ingested) -> Result<(), AppError> {
    tx.insert_binary(scope.tenant(), &ingested.binary, &ingested.blocks)?;
    if scope.settings.scan.is_some() {
        let (id, sha256) = (ingested.binary.id.clone(), ingested.binary.sha256);
        tx.enrol_scan(scope.tenant(), &Scan::of_new(id, sha256, scope.now()))?;
    }
    let row = scope
        .row(Event::BinaryCreated, Outcome::Success, Reason::Permitted)
        .about(about(&ingested.binary))
        .detail("bytes", ingested.binary.size.to_string())
        .detail("sha256", ingested.binary.sha256.to_hex());
    tx.record(scope.tenant(), row);
    Ok(())
}

fn delete(tx: &mut dyn Tx, scope: &Scope, id: &BinaryId) -> Result<(Option<Disposal>, Cuts), AppError> {
    let reach = scope.demand("Binary", Interaction::Delete)?;
    let Some(binary) = tx.binary(scope.tenant(), id)?.filter(|b| !b.deleted) else {
        return Ok((None, Cuts::none()));
    };
    if !reach.covers_content_of(tx, scope, binary.document.as_ref())? {
        return Ok((None, Cuts::none()));
    }
    let relation = Relation {
        creator: binary.uploaded_by == scope.caller.principal.actor,
        ..Relation::default()
    };
    let principal = &scope.caller.principal;
    if !relation.creator && !principal.has_any(&[Role::Operator, Role::RecordsManager, Role::Auditor]) {
        // Answered as if it had never been there.
        return Ok((None, Cuts::none()));
    }
    let mut relation = relation;
    let mut document = None;
    if let Some(id) = &binary.document {
        // With its document locked, no Task can bind a grant to it meanwhile.
        let (tasks, held) = super::documents::lock_with_tasks(tx, scope, id)?;
        if !reach.covers_content_of(tx, scope, Some(id))? {
            return Ok((None, Cuts::none()));
        }
        relation.through_task = tasks
            .iter()
            .any(|task| !task.deleted && super::tasks::sees(scope, task));
        document = held;
    }
    let object = Object::Document(document.as_ref());
    scope.permit(Action::BinaryDelete, relation, object, Event::BinaryDeleted)?;
    if let Some(document) = &document {
        holds::deny(tx, scope, document)?;
    }
    let grants = tx.grants_of_binary(scope.tenant(), id)?;
    if grants.iter().any(|g| g.state.is_open()) {
        return Err(AppError::new(
            Class::Conflict,
            Reason::Invalid,
            "a live grant names this content; revoke the grant or end its task first",
        ));
    }
    let mut cuts = Cuts::none();
    for grant in grants.iter().filter(|g| g.uses > 0) {
        if tx.cut_redemptions(scope.tenant(), &grant.id, Reason::DocumentDeleted, scope.now())? > 0 {
            cuts.0.push((grant.id.clone(), Reason::DocumentDeleted));
        }
    }
    tx.delete_binary(scope.tenant(), id, binary.document.as_ref(), scope.now())?;
    let row = scope
        .row(Event::BinaryDeleted, Outcome::Success, Reason::Permitted)
        .about(about(&binary));
    tx.record(scope.tenant(), row);
    if binary.document.is_some() {
        return Ok((None, cuts));
    }
    let marked = disposal::mark(
        tx,
        scope,
        &binary.id,
        None,
        Cause::Deleted,
        String::new(),
        scope.now(),
    )?;
    Ok((Some(marked), cuts))
}

/// What a row about a Binary says it was about.
pub fn about(binary: &StoredBinary) -> About {
    About {
        binary: Some(format!("Binary/{}", binary.id)),
        document: binary.document.as_ref().map(|d| format!("DocumentReference/{d}")),
        ..About::default()
    }
}

/// The Binary as a resource without its data, as create answers it.
pub fn stored(binary: &StoredBinary) -> Stored {
    let mut body = json!({
        "resourceType": "Binary",
        "id": binary.id.as_str(),
        "meta": {"versionId": "1", "lastUpdated": binary.created.to_instant()},
        "contentType": binary.content_type,
    });
    if let Some(context) = &binary.security_context {
        super::json_edit::set_field(&mut body, "securityContext", json!({"reference": context}));
    }
    Stored {
        kind: "Binary",
        id: binary.id.to_string(),
        version: 1,
        last_updated: binary.created,
        body: body.to_string().into_bytes(),
        created: true,
    }
}
