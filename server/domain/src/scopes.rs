//! SMART scopes of resources (SMART App Launch 2.2, "Scopes for requesting FHIR resources"; version 1 by its mapping):
//! one scope is read here, to the letter. What a token's scopes come to is the use cases' business.

/// Whose rights a scope caps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Level {
    /// The user's, and only about the patient of the launch.
    Patient,
    /// The user's.
    User,
    /// A system's own.
    System,
}

/// What a scope lets a client do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Interaction {
    /// `c`
    Create,
    /// `r`: read, vread and the history of one resource.
    Read,
    /// `u`
    Update,
    /// `d`
    Delete,
    /// `s`: search, and the history of a type.
    Search,
}

impl Interaction {
    /// In the only order in which they may stand.
    const ORDER: [Self; 5] = [Self::Create, Self::Read, Self::Update, Self::Delete, Self::Search];

    /// Its letter.
    pub const fn letter(self) -> char {
        match self {
            Self::Create => 'c',
            Self::Read => 'r',
            Self::Update => 'u',
            Self::Delete => 'd',
            Self::Search => 's',
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// One scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmartScope {
    /// Whose rights.
    pub level: Level,
    /// The resource type; `None` for `*`, every type.
    pub kind: Option<String>,
    /// Search parameters and values, decoded: only resources that match all of them.
    pub constraints: Vec<(String, String)>,
    interactions: u8,
}

/// The most constraints of one scope.
const MOST_CONSTRAINTS: usize = 16;
/// SMART's scopes as absolute URIs, for servers that demand such.
const URI_PREFIX: &str = "http://smarthealthit.org/fhir/scopes/";

impl SmartScope {
    /// Reads one scope. `None` where it is none about resources (`openid`, `launch/patient`, …).
    ///
    /// Fails where it means to be one and is not: a letter that does not exist, letters out of order, a type that is no
    /// name, a constraint that can't be read. The error is what to say of it, without the scope.
    pub fn parse(scope: &str) -> Option<Result<Self, &'static str>> {
        let scope = scope.strip_prefix(URI_PREFIX).unwrap_or(scope);
        let (level, rest) = scope.split_once('/')?;
        let level = match level {
            "patient" => Level::Patient,
            "user" => Level::User,
            "system" => Level::System,
            _ => return None,
        };
        Some(Self::of(level, rest))
    }

    fn of(level: Level, rest: &str) -> Result<Self, &'static str> {
        let (what, query) = match rest.split_once('?') {
            Some((what, query)) => (what, Some(query)),
            None => (rest, None),
        };
        let (kind, letters) = what.split_once('.').ok_or("it names no interaction")?;
        let kind = match kind {
            "*" => None,
            name if is_type(name) => Some(name.to_owned()),
            _ => return Err("its resource type is no name of one"),
        };
        let constraints = query.map_or(Ok(Vec::new()), constraints)?;
        Ok(Self {
            level,
            kind,
            constraints,
            interactions: interactions(letters)?,
        })
    }

    /// Whether it lets a client do `interaction` with resources of the type `kind`.
    pub fn covers(&self, kind: &str, interaction: Interaction) -> bool {
        self.interactions & interaction.bit() != 0 && self.kind.as_deref().is_none_or(|own| own == kind)
    }
}

fn is_type(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_uppercase())
        && name.len() <= 64
        && name.bytes().all(|b| b.is_ascii_alphabetic())
}

fn interactions(letters: &str) -> Result<u8, &'static str> {
    let letters = match letters {
        "read" => "rs",
        "write" => "cud",
        "*" => "cruds",
        other => other,
    };
    let mut order = Interaction::ORDER.into_iter();
    let mut found = 0;
    for letter in letters.chars() {
        // Those before it can't follow any more.
        let next = order
            .find(|one| one.letter() == letter)
            .ok_or("its interactions are not some of `cruds` in that order")?;
        found |= next.bit();
    }
    match found {
        0 => Err("it names no interaction"),
        some => Ok(some),
    }
}

fn constraints(query: &str) -> Result<Vec<(String, String)>, &'static str> {
    const UNREADABLE: &str = "its constraint can't be read";
    let mut found = Vec::new();
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').ok_or(UNREADABLE)?;
        let (name, value) = (
            decoded(name).ok_or(UNREADABLE)?,
            decoded(value).ok_or(UNREADABLE)?,
        );
        if name.is_empty() || value.is_empty() || found.len() >= MOST_CONSTRAINTS {
            return Err(UNREADABLE);
        }
        found.push((name, value));
    }
    Ok(found)
}

/// Without percent-encoding. A `+` is itself: a scope is no form.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let (high, low) = (digit()?, digit()?);
        bytes.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letters(scope: &str) -> String {
        let scope = SmartScope::parse(scope)
            .expect("it is about resources")
            .expect("it is one");
        Interaction::ORDER
            .into_iter()
            .filter(|one| scope.covers("Task", *one))
            .map(Interaction::letter)
            .collect()
    }

    #[test]
    fn both_versions_are_read() {
        for (scope, meant) in [
            ("user/Task.r", "r"),
            ("user/*.cruds", "cruds"),
            ("patient/Task.cu", "cu"),
            ("system/Task.rs", "rs"),
            ("user/Task.read", "rs"),
            ("user/Task.write", "cud"),
            ("user/*.*", "cruds"),
            ("http://smarthealthit.org/fhir/scopes/user/Task.s", "s"),
            ("user/Patient.cruds", ""),
        ] {
            assert_eq!(letters(scope), meant, "{scope}");
        }
    }

    #[test]
    fn what_is_not_to_the_letter_is_refused() {
        for scope in [
            "user/Task.sr",
            "user/Task.rr",
            "user/Task.dus",
            "user/Task.rd.",
            "user/Task.x",
            "user/Task.READ",
            "user/Task.",
            "user/Task",
            "user/",
            "user/task.r",
            "user/Ta*.r",
            "user/**.r",
            "user/.r",
            "patient/Task.rs?",
            "patient/Task.rs?status",
            "patient/Task.rs?=x",
            "patient/Task.rs?status=",
            "patient/Task.rs?status=%4",
            "patient/Task.rs?status=%FF",
            "patient/Task.rs?status=a&",
        ] {
            assert!(matches!(SmartScope::parse(scope), Some(Err(_))), "{scope}");
        }
        for scope in [
            "openid",
            "launch/patient",
            "fhirUser",
            "users/Task.r",
            "",
            "/",
            "patient",
        ] {
            assert_eq!(SmartScope::parse(scope), None, "{scope}");
        }
    }

    #[test]
    fn constraints_are_decoded_and_all_of_them_kept() {
        let scope =
            "patient/DocumentReference.rs?category=http://x.example/a%7Cnote&status=current%2Csuperseded";
        let scope = SmartScope::parse(scope).unwrap().unwrap();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            scope.constraints,
            [
                pair("category", "http://x.example/a|note"),
                pair("status", "current,superseded")
            ]
        );
    }
}
