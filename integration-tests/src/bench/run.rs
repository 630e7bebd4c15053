//! A run on our own server: what it is given, the order of its scenes, and that each failure costs only its own rows.

use std::path::PathBuf;
use std::time::Instant;

use tempfile::TempDir;

use crate::arguments::{Arguments, Scale, Scene};
use crate::azurite::Container;
use crate::bulk::Population;
use crate::database::Database;
use crate::failure::{Failure, Result};
use crate::report::{Report, Row};
use crate::server::Stores;
use crate::stage::Stage;
use crate::two_rows::TwoRows;
use crate::{rows, say, two_rows};

/// What the scenes of a run share.
pub struct Run {
    /// How much of everything.
    pub scale: Scale,
    /// The program that is measured.
    pub program: PathBuf,
    folder: TempDir,
    services: Option<Services>,
    /// What the database does without us, once it was measured.
    pub reference: Option<TwoRows>,
    /// The cloned Tasks, once there are some.
    pub population: Option<Population>,
}

/// PostgreSQL and Azurite.
pub struct Services {
    /// A database of this run's own.
    pub database: Database,
    /// A container of its own.
    pub container: Container,
}

impl Run {
    /// The services, where this run has them.
    pub fn services(&self) -> Result<&Services> {
        self.services
            .as_ref()
            .ok_or_else(|| Failure::new("PostgreSQL and Azurite are not there"))
    }

    /// A server on PostgreSQL and Azurite.
    pub fn production(&self) -> Result<Stores> {
        let services = self.services()?;
        Ok(Stores {
            data: self.fresh_folder("production")?,
            database: Some(services.database.url()),
            blob: Some(services.container.url().to_owned()),
        })
    }

    /// A server on SQLite and a directory, both empty.
    pub fn embedded(&self, name: &str) -> Result<Stores> {
        Ok(Stores {
            data: self.fresh_folder(name)?,
            database: None,
            blob: None,
        })
    }

    fn fresh_folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// A server on PostgreSQL and Azurite with its cast.
    pub async fn stage(&self) -> Result<Stage> {
        Stage::set(&self.program, &self.production()?).await
    }
}

/// Measures the chosen scenes and adds their rows, as the design lists them.
pub async fn measure(arguments: &Arguments, report: &mut Report) -> Result<()> {
    let program = arguments
        .server
        .clone()
        .ok_or_else(|| Failure::new("no program to measure"))?;
    let chosen: Vec<Scene> = Scene::ALL
        .into_iter()
        .filter(|scene| match arguments.only.as_slice() {
            [] => !(arguments.quick && scene.takes_long()),
            only => only.contains(scene),
        })
        .collect();
    let services = if chosen.iter().any(|scene| scene.needs_services()) {
        Some(services().await?)
    } else {
        None
    };
    if let Some(services) = &services {
        report.fact("database", services.database.settings().await?);
    }
    let mut run = Run {
        scale: arguments.scale(),
        program,
        folder: TempDir::with_prefix("handoff-bench.")?,
        services,
        reference: None,
        population: None,
    };
    let mut measured = Vec::new();
    let mut order = chosen.clone();
    order.sort_by_key(|scene| (scene.comes_last(), *scene == Scene::Slow));
    for scene in order {
        let begun = Instant::now();
        let rows = rows::measure(scene, &mut run)
            .await
            .unwrap_or_else(|failure| vec![Row::failed(rows::id(scene), rows::title(scene), &failure)]);
        measured.push((scene, rows));
        say(&format!(
            "{}: {} s",
            rows::title(scene),
            begun.elapsed().as_secs()
        ));
    }
    measured.sort_by_key(|(scene, _)| chosen.iter().position(|other| other == scene));
    for row in measured.into_iter().flat_map(|(_, rows)| rows) {
        report.add(row);
    }
    if let Some(reference) = run.reference {
        let mut text = format!(
            "{:.0}/s by {} workers with the server's driver",
            reference.per_second,
            two_rows::WORKERS
        );
        if let Some(rate) = reference.by_pgbench {
            text = format!("{text}, {rate:.0}/s by pgbench");
        }
        report.fact("bare two-row transactions", text);
    }
    if let Some(services) = run.services {
        services.database.drop().await?;
        services.container.delete().await?;
    }
    Ok(())
}

/// Where a service is, by the variable that tells.
pub fn address(variable: &str) -> Result<String> {
    std::env::var(variable)
        .map_err(|_| Failure::new(format!("{variable} is not set: run integration-tests/bench")))
}

async fn services() -> Result<Services> {
    let name = format!("bench-{}", std::process::id());
    Ok(Services {
        container: Container::new(&address("HANDOFF_TEST_AZURITE_URL")?, &name)?,
        database: Database::create(&address("HANDOFF_TEST_POSTGRES_URL")?, &name).await?,
    })
}
