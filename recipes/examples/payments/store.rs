//! The store, SQLite: here it is decided whose charge counts.
//!
//! It remembers the highest token it was shown, and refuses whoever comes with a lower one. Any store
//! with transactions, or with a write that takes a condition, can do the same.

use std::path::Path;
use std::time::Duration;

use quorate_recipes::FencingToken;
use rusqlite::{Connection, TransactionBehavior, params};

use crate::Failure;

/// Two workers may be at it at once.
const BUSY: Duration = Duration::from_secs(10);

/// Makes a new store for so many customers.
pub(crate) fn create(folder: &Path, customers: i64) -> Result<Connection, Failure> {
    let database = Connection::open(folder.join("payments.sqlite"))?;
    database.busy_timeout(BUSY)?;
    database.execute_batch(
        "CREATE TABLE fence (token INTEGER NOT NULL);
         INSERT INTO fence VALUES (0);
         CREATE TABLE customers (id INTEGER PRIMARY KEY);
         CREATE TABLE charges (customer INTEGER NOT NULL, token INTEGER NOT NULL);",
    )?;
    for id in 1..=customers {
        database.execute("INSERT INTO customers VALUES (?1)", params![id])?;
    }
    Ok(database)
}

/// What a leader sees of it.
pub(crate) struct Store {
    database: Connection,
    token: i64,
    is_fenced: bool,
}

impl Store {
    /// Shows it the token: whoever has a lower one is shut out from here on.
    pub(crate) fn open(
        folder: &Path,
        token: FencingToken,
        is_fenced: bool,
    ) -> Result<Self, Failure> {
        let database = Connection::open(folder.join("payments.sqlite"))?;
        database.busy_timeout(BUSY)?;
        let token = i64::try_from(token.get())?;
        let raise = "UPDATE fence SET token = ?1 WHERE token <= ?1";
        database.execute(raise, params![token])?;
        Ok(Self {
            database,
            token,
            is_fenced,
        })
    }

    /// The next customer that was not charged.
    pub(crate) fn next_customer(&self) -> Result<Option<i64>, Failure> {
        let next = "SELECT min(id) FROM customers WHERE id NOT IN (SELECT customer FROM charges)";
        Ok(self.database.query_row(next, [], |row| row.get(0))?)
    }

    /// Charges a customer; `false` if it has been shown a higher token since. The check and the charge
    /// are one transaction: nothing can change in between.
    pub(crate) fn charge(&mut self, customer: i64) -> Result<bool, Failure> {
        let behavior = TransactionBehavior::Immediate;
        let transaction = self.database.transaction_with_behavior(behavior)?;
        if self.is_fenced {
            let check = "SELECT token FROM fence";
            let highest: i64 = transaction.query_row(check, [], |row| row.get(0))?;
            if self.token < highest {
                return Ok(false);
            }
        }
        let charge = "INSERT INTO charges (customer, token) VALUES (?1, ?2)";
        transaction.execute(charge, params![customer, self.token])?;
        transaction.commit()?;
        Ok(true)
    }
}
