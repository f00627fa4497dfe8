//! Threads that read: as many connections, opened once. Whoever reads waits in one bounded queue,
//! however large the crowd is.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OpenFlags};
use tokio::sync::{mpsc, oneshot};

use super::super::StoreUnavailable;
use super::{schema, unavailable};

/// How many read at a time: a long listing must not hold up the joins.
const THREADS: usize = 4;
/// How many may wait.
const QUEUE_LENGTH: usize = 4096;

type Query = Box<dyn FnOnce(&mut Reader) + Send>;

/// The queue of those who read. The threads end with the last of its clones.
#[derive(Debug, Clone)]
pub(super) struct Readers(mpsc::Sender<Query>);

impl Readers {
    /// Starts the threads; the file is opened when the first of them reads.
    pub(super) fn start(path: &Path) -> Result<Self, StoreUnavailable> {
        let (queries, queue) = mpsc::channel(QUEUE_LENGTH);
        let queue = Arc::new(Mutex::new(queue));
        for number in 1..=THREADS {
            let (queue, mut reader) = (Arc::clone(&queue), Reader::new(path));
            std::thread::Builder::new()
                .name(format!("muster-read-{number}"))
                .spawn(move || {
                    while let Some(query) = next(&queue) {
                        query(&mut reader);
                    }
                })
                .map_err(|error| StoreUnavailable(format!("cannot start a reader: {error}")))?;
        }
        Ok(Self(queries))
    }

    /// Runs a query on one of the threads.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreUnavailable> {
        let (answer, outcome) = oneshot::channel();
        let query = move |reader: &mut Reader| {
            // Who went away needs no answer.
            let _gone = answer.send(reader.run(query));
        };
        let ended = || StoreUnavailable("the readers have stopped".to_owned());
        self.0.send(Box::new(query)).await.map_err(|_| ended())?;
        outcome.await.map_err(|_| ended())?
    }
}

fn next(queue: &Mutex<mpsc::Receiver<Query>>) -> Option<Query> {
    queue.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv()
}

/// One thread's connection.
struct Reader {
    path: std::path::PathBuf,
    connection: Option<Connection>,
}

impl Reader {
    fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), connection: None }
    }

    fn run<T>(
        &mut self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreUnavailable> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => open(&self.path)?,
        };
        let result = query(&connection).map_err(unavailable);
        // One that failed may be broken, and is opened anew.
        self.connection = Some(connection).filter(|_| result.is_ok());
        result
    }
}

/// A connection that cannot write.
pub(super) fn open(path: &Path) -> Result<Connection, StoreUnavailable> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(unavailable)?;
    connection.busy_timeout(schema::BUSY_TIMEOUT).map_err(unavailable)?;
    Ok(connection)
}
