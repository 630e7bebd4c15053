//! The fixed cast of the demo: who they are and what their tokens say. No keys, no time.

/// Whose issuer: each tenant has its own, and neither's tokens are good for the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Realm {
    /// The default tenant, at `/dev-issuer`.
    Default,
    /// Tenant `b`, at `/dev-issuer/b`.
    B,
}

impl Realm {
    /// Both realms.
    pub const ALL: [Self; 2] = [Self::Default, Self::B];

    /// The tenant's name.
    pub const fn tenant(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::B => "b",
        }
    }

    /// The path of the issuer below the server's base URL.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Default => "/dev-issuer",
            Self::B => "/dev-issuer/b",
        }
    }

    /// `aud` of its access tokens.
    pub const fn audience(self) -> &'static str {
        match self {
            Self::Default => "https://handoff.example/fhir",
            Self::B => "https://handoff.example/t/b/fhir",
        }
    }

    /// The issuer under `base`.
    pub fn issuer(self, base: &str) -> String {
        format!("{}{}", base.trim_end_matches('/'), self.path())
    }

    /// Everyone who can get a token here.
    pub const fn cast(self) -> &'static [CastMember] {
        match self {
            Self::Default => &DEFAULT_CAST,
            Self::B => &B_CAST,
        }
    }

    /// The cast member who uses `client_id`.
    pub fn member(self, client_id: &str) -> Option<&'static CastMember> {
        self.cast().iter().find(|member| member.client_id == client_id)
    }
}

/// One of the cast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CastMember {
    /// The name to ask for a token with.
    pub client_id: &'static str,
    /// `sub`: the person acted for, where the member is an app.
    pub subject: &'static str,
    /// The name that the sign-in page shows.
    pub name: &'static str,
    /// The one role, by its external or canonical name.
    pub role: &'static str,
    /// Team codes.
    pub teams: &'static [&'static str],
    /// `fhirUser`.
    pub fhir_user: &'static str,
    /// Whether this is somebody who can sign in.
    pub is_person: bool,
}

impl CastMember {
    /// The member's own name where it acts for somebody else (`act.sub`).
    pub fn acts_as_delegate(&self) -> Option<&'static str> {
        (self.client_id != self.subject).then_some(self.client_id)
    }

    /// The widest scope of its kind: scopes only cap, so what is refused is refused by policy.
    pub fn default_scope(&self) -> &'static str {
        if self.is_person || self.acts_as_delegate().is_some() {
            "user/*.cruds"
        } else {
            "system/*.cruds"
        }
    }
}

const fn person(
    client_id: &'static str,
    name: &'static str,
    role: &'static str,
    teams: &'static [&'static str],
    fhir_user: &'static str,
) -> CastMember {
    CastMember {
        client_id,
        subject: client_id,
        name,
        role,
        teams,
        fhir_user,
        is_person: true,
    }
}

const fn system(
    client_id: &'static str,
    name: &'static str,
    role: &'static str,
    fhir_user: &'static str,
) -> CastMember {
    CastMember {
        client_id,
        subject: client_id,
        name,
        role,
        teams: &[],
        fhir_user,
        is_person: false,
    }
}

const DEFAULT_CAST: [CastMember; 10] = [
    system(
        "ehr",
        "Referring clinic's EHR",
        "placer",
        "Organization/referring-clinic",
    ),
    person(
        "lane",
        "Dr. Lane, cardiology",
        "physician",
        &["cardiology"],
        "Practitioner/lane",
    ),
    person(
        "otis",
        "Dr. Otis, oncology",
        "physician",
        &["oncology"],
        "Practitioner/otis",
    ),
    person(
        "clerk",
        "Cardiology clerk",
        "team-member",
        &["cardiology"],
        "Practitioner/clerk",
    ),
    CastMember {
        client_id: "viewer-app",
        subject: "lane",
        name: "Document viewer, for Dr. Lane",
        role: "document-viewer",
        teams: &["cardiology"],
        fhir_user: "Practitioner/lane",
        is_person: false,
    },
    system("interface", "Interface engine", "subscriber", "Device/interface"),
    person("operator", "Operator", "operator", &[], "Practitioner/operator"),
    person(
        "records",
        "Records manager",
        "records-manager",
        &[],
        "Practitioner/records",
    ),
    person("auditor", "Auditor", "auditor", &[], "Practitioner/auditor"),
    person(
        "glass",
        "Emergency physician",
        "break-glass",
        &[],
        "Practitioner/glass",
    ),
];

const B_CAST: [CastMember; 2] = [
    system("ehr-b", "Clinic B's EHR", "placer", "Organization/clinic-b"),
    person(
        "lane-b",
        "Dr. Lane of clinic B",
        "physician",
        &["cardiology"],
        "Practitioner/lane-b",
    ),
];
