//! Malware scans: what is known of each Binary, and who has it in hand. Knows no scanner, and judges nothing.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Binary, Nullable, Text};
use handoff_domain::document::Sha256;
use handoff_domain::ports::StoreError;
use handoff_domain::scan::{Scan, Verdict};
use handoff_domain::{BinaryId, Span, TenantId, Timestamp};

use crate::dialect::{AnyConnection, Column, Hold, Table};
use crate::error::{OrRefused, unreadable};
use crate::schema::scans;
use crate::statement::Statement;
use crate::unit::Unit;

static SCANS: Table = Table {
    name: "scans",
    columns: &[
        ("tenant", Column::Text),
        ("id", Column::Text),
        ("sha256", Column::Bytes),
        ("verdict", Column::Text),
        ("signature", Column::Text),
        ("engine", Column::Text),
        ("scanned_at", Column::Int),
        ("since", Column::Int),
        ("tries", Column::Int),
        ("due_at", Column::Int),
    ],
};

/// What a read selects, and the types of it.
const FIELDS: &str =
    "SELECT id, sha256, verdict, signature, engine, scanned_at, since, tries, due_at FROM scans";

type Fields = (
    Text,
    Binary,
    Text,
    Nullable<Text>,
    Nullable<Text>,
    Nullable<BigInt>,
    BigInt,
    BigInt,
    Nullable<BigInt>,
);

type Row = (
    String,
    Vec<u8>,
    String,
    Option<String>,
    Option<String>,
    Option<i64>,
    i64,
    i64,
    Option<i64>,
);

fn read((id, sha256, verdict, signature, engine, scanned_at, since, tries, due_at): Row) -> Option<Scan> {
    Some(Scan {
        binary: BinaryId::parse(id).ok()?,
        sha256: Sha256(sha256.try_into().ok()?),
        verdict: Verdict::parse(&verdict)?,
        signature,
        engine,
        scanned_at: scanned_at.map(Timestamp),
        since: Timestamp(since),
        tries: u32::try_from(tries).ok()?,
        due_at: due_at.map(Timestamp),
    })
}

/// What is known of a Binary.
pub(crate) fn scan(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    binary: &BinaryId,
) -> Result<Option<Scan>, StoreError> {
    found(connection, tenant, binary, "")
}

/// The same, and nobody changes it before the unit ends.
pub(crate) fn hold(
    unit: &mut Unit<'_>,
    tenant: &TenantId,
    binary: &BinaryId,
) -> Result<Option<Scan>, StoreError> {
    unit.settle_tables(&["scans"])?;
    let holding = unit.connection.holding(Hold::Shared);
    found(unit.connection, tenant, binary, holding)
}

fn found(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    binary: &BinaryId,
    holding: &'static str,
) -> Result<Option<Scan>, StoreError> {
    let row: Option<Row> = Statement::<Fields>::new(FIELDS)
        .sql(" WHERE tenant = ")
        .bind(tenant.as_str())
        .sql(" AND id = ")
        .bind(binary.as_str())
        .sql(holding)
        .get_result(connection)
        .optional()
        .or_refused()?;
    // One that can't be read must not be taken for none, nor for a clean one.
    row.map(|row| read(row).ok_or_else(|| unreadable("scan")))
        .transpose()
}

/// What is to be scanned by now and is in nobody's hands: what has no verdict first, in the order of its coming.
pub(crate) fn due(
    connection: &mut AnyConnection,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<(TenantId, BinaryId)>, StoreError> {
    let mut due = Vec::new();
    for verdict in [
        Verdict::Pending,
        Verdict::Failed,
        Verdict::Clean,
        Verdict::TooLarge,
    ] {
        let left = limit.saturating_sub(u32::try_from(due.len()).unwrap_or(limit));
        if left == 0 {
            break;
        }
        let clock = connection.clock();
        let rows: Vec<(String, String)> =
            Statement::<(Text, Text)>::new("SELECT tenant, id FROM scans WHERE verdict = ")
                .bind(verdict.as_str())
                .sql(" AND due_at <= ")
                .bind(now.0)
                .sql(" AND (claimed_until IS NULL OR claimed_until <= ")
                .sql(clock)
                .sql(") ORDER BY due_at LIMIT ")
                .bind(i64::from(left))
                .load(connection)
                .or_refused()?;
        for (tenant, id) in rows {
            due.push(named(tenant, id)?);
        }
    }
    Ok(due)
}

fn named(tenant: String, id: String) -> Result<(TenantId, BinaryId), StoreError> {
    let tenant = TenantId::parse(tenant).map_err(|_| unreadable("scan"))?;
    let id = BinaryId::parse(id).map_err(|_| unreadable("scan"))?;
    Ok((tenant, id))
}

/// Since when the one waits that has waited longest.
pub(crate) fn unscanned_since(
    connection: &mut AnyConnection,
    now: Timestamp,
) -> Result<Option<Timestamp>, StoreError> {
    let of_new: Option<i64> = Statement::<Nullable<BigInt>>::new(
        "SELECT min(since) FROM scans WHERE verdict IN ('pending', 'failed')",
    )
    .get_result(connection)
    .or_refused()?;
    let of_clean: Option<i64> = Statement::<Nullable<BigInt>>::new(
        "SELECT min(since) FROM scans WHERE verdict = 'clean' AND due_at <= ",
    )
    .bind(now.0)
    .get_result(connection)
    .or_refused()?;
    Ok(of_new.into_iter().chain(of_clean).min().map(Timestamp))
}

/// Binaries of which nothing is known here.
pub(crate) fn never_enrolled(
    connection: &mut AnyConnection,
    after: Option<&(TenantId, BinaryId)>,
    limit: u32,
) -> Result<Vec<(TenantId, BinaryId, Sha256)>, StoreError> {
    let mut statement = Statement::<(Text, Text, Binary)>::new(
        "SELECT b.tenant, b.id, b.sha256 FROM binaries b LEFT JOIN scans s ON s.tenant = b.tenant AND s.id = b.id \
         WHERE s.id IS NULL AND b.deleted_at IS NULL",
    );
    if let Some((tenant, id)) = after {
        statement = statement
            .sql(" AND (b.tenant, b.id) > (")
            .bind(tenant.as_str())
            .sql(", ")
            .bind(id.as_str())
            .sql(")");
    }
    let rows: Vec<(String, String, Vec<u8>)> = statement
        .sql(" ORDER BY b.tenant, b.id LIMIT ")
        .bind(i64::from(limit))
        .load(connection)
        .or_refused()?;
    rows.into_iter()
        .map(|(tenant, id, sha256)| {
            let (tenant, id) = named(tenant, id)?;
            let sha256 = sha256.try_into().map_err(|_| unreadable("Binary"))?;
            Ok((tenant, id, Sha256(sha256)))
        })
        .collect()
}

/// Begins with a Binary.
pub(crate) fn enrol(unit: &mut Unit<'_>, tenant: &TenantId, scan: &Scan) {
    unit.bulk.add(
        &SCANS,
        vec![
            tenant.as_str().into(),
            scan.binary.as_str().into(),
            scan.sha256.0.to_vec().into(),
            scan.verdict.as_str().into(),
            scan.signature.clone().into(),
            scan.engine.clone().into(),
            scan.scanned_at.map(|at| at.0).into(),
            scan.since.0.into(),
            i64::from(scan.tries).into(),
            scan.due_at.map(|at| at.0).into(),
        ],
    );
}

/// Takes a Binary in hand, or keeps it there; answers whether it is the process's own now.
pub(crate) fn claim(
    unit: &mut Unit<'_>,
    tenant: &TenantId,
    binary: &BinaryId,
    process: &str,
    term: Span,
    now: Timestamp,
) -> Result<bool, StoreError> {
    unit.settle_tables(&["scans"])?;
    let clock = unit.connection.clock();
    let claimed = Statement::<()>::new("UPDATE scans SET claimed_by = ")
        .bind(process)
        .sql(", claimed_until = ")
        .sql(clock)
        .sql(" + ")
        .bind(term.0)
        .sql(" WHERE tenant = ")
        .bind(tenant.as_str())
        .sql(" AND id = ")
        .bind(binary.as_str())
        .sql(" AND due_at <= ")
        .bind(now.0)
        .sql(" AND (claimed_by IS NULL OR claimed_by = ")
        .bind(process)
        .sql(" OR claimed_until <= ")
        .sql(clock)
        .sql(")")
        .run(unit.connection)
        .or_refused()?;
    Ok(claimed == 1)
}

/// Lets go of a Binary.
pub(crate) fn release(
    unit: &mut Unit<'_>,
    tenant: &TenantId,
    binary: &BinaryId,
    process: &str,
) -> Result<(), StoreError> {
    unit.settle_tables(&["scans"])?;
    diesel::update(scans::table.find((tenant.as_str(), binary.as_str())))
        .filter(scans::claimed_by.eq(process))
        .set((
            scans::claimed_by.eq(None::<String>),
            scans::claimed_until.eq(None::<i64>),
        ))
        .execute(unit.connection)
        .or_refused()
        .map(drop)
}

/// Keeps what was found out, where the process still has it in hand; answers whether it had.
pub(crate) fn keep(
    unit: &mut Unit<'_>,
    tenant: &TenantId,
    scan: &Scan,
    process: &str,
) -> Result<bool, StoreError> {
    unit.settle_tables(&["scans"])?;
    let kept = diesel::update(scans::table.find((tenant.as_str(), scan.binary.as_str())))
        .filter(scans::claimed_by.eq(process))
        .set((
            scans::verdict.eq(scan.verdict.as_str()),
            scans::signature.eq(scan.signature.as_deref()),
            scans::engine.eq(scan.engine.as_deref()),
            scans::scanned_at.eq(scan.scanned_at.map(|at| at.0)),
            scans::since.eq(scan.since.0),
            scans::tries.eq(i64::from(scan.tries)),
            scans::due_at.eq(scan.due_at.map(|at| at.0)),
            scans::claimed_by.eq(None::<String>),
            scans::claimed_until.eq(None::<i64>),
        ))
        .execute(unit.connection)
        .or_refused()?;
    Ok(kept == 1)
}

/// Forgets a Binary.
pub(crate) fn forget(unit: &mut Unit<'_>, tenant: &TenantId, binary: &BinaryId) -> Result<(), StoreError> {
    unit.settle_tables(&["scans"])?;
    diesel::delete(scans::table.find((tenant.as_str(), binary.as_str())))
        .execute(unit.connection)
        .or_refused()
        .map(drop)
}

/// All others with the same bytes wait from now on, but those that are known to be infected.
pub(crate) fn doubt_equals(
    unit: &mut Unit<'_>,
    tenant: &TenantId,
    of: &Scan,
    now: Timestamp,
) -> Result<(), StoreError> {
    unit.settle_tables(&["scans"])?;
    diesel::update(scans::table)
        .filter(scans::tenant.eq(tenant.as_str()))
        .filter(scans::sha256.eq(of.sha256.0.as_slice()))
        .filter(scans::id.ne(of.binary.as_str()))
        .filter(scans::verdict.ne(Verdict::Infected.as_str()))
        .set((
            scans::verdict.eq(Verdict::Pending.as_str()),
            scans::since.eq(now.0),
            scans::due_at.eq(Some(now.0)),
            // A scan that is under way began before this was known.
            scans::claimed_by.eq(None::<String>),
            scans::claimed_until.eq(None::<i64>),
        ))
        .execute(unit.connection)
        .or_refused()
        .map(drop)
}

/// No clean verdict is left for longer than `span` before the content is scanned again.
pub(crate) fn rescan_within(unit: &mut Unit<'_>, span: Span) -> Result<(), StoreError> {
    unit.settle_tables(&["scans"])?;
    Statement::<()>::new("UPDATE scans SET due_at = scanned_at + ")
        .bind(span.0)
        .sql(", since = scanned_at + ")
        .bind(span.0)
        .sql(" WHERE verdict = 'clean' AND due_at > scanned_at + ")
        .bind(span.0)
        .run(unit.connection)
        .or_refused()
        .map(drop)
}
