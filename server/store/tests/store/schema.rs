//! The schema: both databases have the tables and columns that the code names, and the same migrations.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use diesel::sql_types::Text;
use diesel::{Connection, PgConnection, QueryableByName, RunQueryDsl, SqliteConnection};
use handoff_domain::ports::{Store, StoreError};
use handoff_store::{DieselStore, StoreConfig};

use crate::rig::{Rig, on_both};

type Tables = BTreeMap<String, BTreeSet<String>>;

#[derive(QueryableByName)]
struct Column {
    #[diesel(sql_type = Text)]
    table_name: String,
    #[diesel(sql_type = Text)]
    column_name: String,
}

fn introspected(rig: &Rig) -> Tables {
    let columns: Vec<Column> = if rig.is_postgres() {
        let mut connection = PgConnection::establish(&rig.config.url).unwrap();
        diesel::sql_query(
            "SELECT table_name::text, column_name::text FROM information_schema.columns WHERE table_schema = 'public'",
        )
        .load(&mut connection)
        .unwrap()
    } else {
        let mut connection = SqliteConnection::establish(&rig.config.url).unwrap();
        diesel::sql_query(
            "SELECT m.name AS table_name, c.name AS column_name FROM sqlite_master m JOIN pragma_table_info(m.name) c \
             WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%'",
        )
        .load(&mut connection)
        .unwrap()
    };
    let mut tables = Tables::new();
    for column in columns.into_iter().filter(|c| !c.table_name.starts_with("__")) {
        tables
            .entry(column.table_name)
            .or_default()
            .insert(column.column_name);
    }
    tables
}

/// What `schema.rs` says, read as text: a table opens with its key, a column has an arrow.
fn declared() -> Tables {
    let mut tables = Tables::new();
    let mut table = String::new();
    for line in include_str!("../../src/schema.rs").lines().map(str::trim) {
        if let Some((name, _)) = line.split_once(" (").filter(|_| line.ends_with(") {")) {
            name.clone_into(&mut table);
        } else if let Some((column, _)) = line.split_once(" -> ") {
            tables.entry(table.clone()).or_default().insert(column.to_owned());
        }
    }
    tables
}

on_both! {
    async fn the_database_has_the_tables_and_columns_that_the_code_names(rig: Arc<Rig>) {
        let declared = declared();
        assert_eq!(declared.len(), 41);
        assert_eq!(introspected(&rig), declared);
    }

    async fn a_migrated_database_is_ready_and_has_nothing_pending(rig: Arc<Rig>) {
        assert_eq!(handoff_store::pending(&rig.config).unwrap(), [""; 0]);
        assert_eq!(handoff_store::migrate(&rig.config).unwrap(), [""; 0]);
        assert_eq!(rig.store.ready().await, Ok(()));
    }
}

#[test]
fn both_trees_have_the_same_migrations() {
    let names = |tree: &str| -> BTreeSet<String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../migrations")
            .join(tree);
        std::fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect()
    };
    assert_eq!(names("postgres"), names("sqlite"));
}

#[test]
fn a_database_that_was_not_migrated_is_not_ready() {
    let directory = tempfile::tempdir().unwrap();
    let config = StoreConfig::new(directory.path().join("new.db").to_str().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = DieselStore::open(&config).await.unwrap();
        assert!(matches!(store.ready().await, Err(StoreError::Unavailable(_))));
        let all = handoff_store::pending(&config).unwrap().len();
        assert!(all > 0);
        let applied: Vec<_> = [(), ()]
            .map(|()| {
                let config = config.clone();
                std::thread::spawn(move || handoff_store::migrate(&config))
            })
            .into_iter()
            .map(|thread| thread.join().unwrap().unwrap().len())
            .collect();
        assert_eq!(
            applied.iter().sum::<usize>(),
            all,
            "two servers that start at once migrate once"
        );
        assert_eq!(store.ready().await, Ok(()));
    });
}
