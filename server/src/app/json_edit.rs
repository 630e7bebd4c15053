//! Changes that the server itself makes to a stored resource: status, business status, priority, supersession.
//! Works on the stored JSON, which was validated when it came in; everything else in it stays as it was.

use handoff_domain::ports::StoreError;
use handoff_domain::task::{Priority, TaskStatus};
use handoff_domain::time::Timestamp;
use handoff_fhir_model::Resource;
use handoff_fhir_profiles::canonical::BUSINESS_STATUS_SYSTEM;
use handoff_fhir_profiles::terminology;
use serde_json::{Value, json};

use super::AppError;

/// A word of the CodeSystem `business-status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BusinessStatus {
    /// A grant expired unredeemed.
    LinkExpired,
    /// A redemption was completed.
    Accessed,
    /// Expiry raised the priority.
    Escalated,
}

impl BusinessStatus {
    /// The code.
    pub const fn code(self) -> &'static str {
        match self {
            Self::LinkExpired => "link-expired",
            Self::Accessed => "accessed",
            Self::Escalated => "escalated",
        }
    }
}

/// What the server changes in a Task.
#[derive(Debug, Clone, Copy, Default)]
pub struct TaskEdit {
    /// A new `status`.
    pub status: Option<TaskStatus>,
    /// A new `businessStatus`.
    pub business_status: Option<BusinessStatus>,
    /// A new `priority`.
    pub priority: Option<Priority>,
}

/// The stored resource, ready for a change.
pub fn open(body: &[u8]) -> Result<Resource, AppError> {
    handoff_fhir_model::parse_stored(body).map_err(|issues| {
        let what = issues.first().map_or_else(String::new, |i| i.text.clone());
        AppError::from(StoreError::Broken(format!(
            "a stored resource is not valid: {what}"
        )))
    })
}

fn set(resource: &mut Resource, element: &str, value: Value) {
    set_field(resource.value_mut(), element, value);
}

/// Sets a field of a JSON object; anything else is left as it is.
pub fn set_field(object: &mut Value, name: &str, value: Value) {
    if let Some(map) = object.as_object_mut() {
        map.insert(name.to_owned(), value);
    }
}

/// Sets `meta.versionId` and `meta.lastUpdated`.
pub fn stamp(resource: &mut Resource, version: i64, at: Timestamp) {
    resource.stamp_meta(&version.to_string(), &at.to_instant());
}

/// Changes a Task and stamps it as the next version.
pub fn edit_task(body: &[u8], edit: TaskEdit, version: i64, at: Timestamp) -> Result<Resource, AppError> {
    let mut resource = open(body)?;
    if let Some(status) = edit.status {
        set(&mut resource, "status", json!(status.as_str()));
    }
    if let Some(status) = edit.business_status {
        set(&mut resource, "businessStatus", business_status(status));
    }
    if let Some(priority) = edit.priority {
        set(&mut resource, "priority", json!(priority.as_str()));
    }
    stamp(&mut resource, version, at);
    Ok(resource)
}

/// Marks a document as superseded and stamps it as the next version.
pub fn supersede_document(body: &[u8], version: i64, at: Timestamp) -> Result<Resource, AppError> {
    let mut resource = open(body)?;
    set(&mut resource, "status", json!("superseded"));
    stamp(&mut resource, version, at);
    Ok(resource)
}

fn business_status(status: BusinessStatus) -> Value {
    let code = status.code();
    let mut coding = json!({"system": BUSINESS_STATUS_SYSTEM, "code": code});
    if let Some(concept) = terminology::concept(BUSINESS_STATUS_SYSTEM, code) {
        set_field(&mut coding, "display", json!(concept.display));
    }
    json!({"coding": [coding]})
}
