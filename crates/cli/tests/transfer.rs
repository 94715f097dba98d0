//! Whole transfers between a sender and a receiver over in-memory streams: cut anywhere, damaged,
//! repeated, and onto a full disk.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::slice::from_ref;
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split};
use wiremesh_cli::transfer::{
    Answer, Meter, Options, Overwrite, Received, Refusal, Sent, TransferError, receive,
    receive::Stopped, serve, walk,
};

const SECRET: [u8; 16] = *b"sixteen bytes ok";

/// What the wire does to the bytes from the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wire {
    Clean,
    /// Ends after so many bytes.
    CutAfter(usize),
    /// Flips a bit of this byte.
    Damage(usize),
}

type Outcome = (
    Result<Sent, TransferError>,
    Result<Received, Stopped>,
    Arc<Meter>,
);

fn options(into: &Path) -> Options {
    Options {
        into: into.to_owned(),
        overwrite: Overwrite::Refuse,
        room: None,
    }
}

/// Carries bytes both ways; the sender's as `wire` says.
async fn carry(sender: DuplexStream, receiver: DuplexStream, wire: Wire) {
    let (mut from_sender, mut to_sender) = split(sender);
    let (mut from_receiver, mut to_receiver) = split(receiver);
    let back = async {
        let _ = tokio::io::copy(&mut from_receiver, &mut to_sender).await;
        let _ = to_sender.shutdown().await;
    };
    let forth = async {
        let mut seen = 0;
        let mut buffer = vec![0; 8192];
        while let Ok(count @ 1..) = from_sender.read(&mut buffer).await {
            let mut bytes = &mut buffer[..count];
            match wire {
                Wire::CutAfter(end) if seen + count > end => bytes = &mut bytes[..end - seen],
                Wire::Damage(at) if (seen..seen + count).contains(&at) => bytes[at - seen] ^= 1,
                _ => {}
            }
            seen += count;
            if to_receiver.write_all(bytes).await.is_err() || bytes.len() < count {
                break;
            }
        }
        let _ = to_receiver.shutdown().await;
        !matches!(wire, Wire::CutAfter(end) if seen > end)
    };
    tokio::pin!(back);
    tokio::select! {
        whole = forth => if whole { back.await },
        () = &mut back => {}
    }
}

async fn transfer_with(
    paths: &[PathBuf],
    options: Options,
    wire: Wire,
    ticket: [u8; 16],
) -> Outcome {
    let source = Arc::new(walk(paths).expect("walks").source);
    let (sender, sender_wire) = duplex(64 * 1024);
    let (receiver, receiver_wire) = duplex(64 * 1024);
    let meter = Arc::new(Meter::default());
    let (sender_read, sender_write) = split(sender);
    let (receiver_read, receiver_write) = split(receiver);
    let sending = serve(sender_read, sender_write, &SECRET, source, Arc::default());
    let receiving = receive(
        receiver_read,
        receiver_write,
        &ticket,
        options,
        Arc::clone(&meter),
        std::future::pending(),
    );
    let carrying = tokio::spawn(carry(sender_wire, receiver_wire, wire));
    let (sent, received) = tokio::join!(sending, receiving);
    carrying.abort();
    (sent, received, meter)
}

async fn transfer(paths: &[PathBuf], into: &Path, wire: Wire) -> Outcome {
    transfer_with(paths, options(into), wire, SECRET).await
}

fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    let mut bytes = vec![0; length];
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

fn file(dir: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.path().join(name);
    fs::create_dir_all(path.parent().expect("has one")).expect("created");
    fs::write(&path, bytes).expect("written");
    path
}

/// Everything below a folder.
fn tree(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for item in fs::read_dir(folder).expect("lists") {
            let path = item.expect("an item").path();
            let name = path
                .strip_prefix(dir)
                .expect("below")
                .to_string_lossy()
                .into_owned();
            if path.is_dir() {
                found.insert(format!("{name}/"), Vec::new());
                folders.push(path);
            } else {
                found.insert(name, fs::read(&path).expect("reads"));
            }
        }
    }
    found
}

fn folders() -> (TempDir, TempDir) {
    (
        tempfile::tempdir().expect("a folder"),
        tempfile::tempdir().expect("a folder"),
    )
}

#[tokio::test]
async fn file_arrives_with_its_time_and_mode() {
    use std::os::unix::fs::PermissionsExt;
    let (from, into) = folders();
    let path = file(&from, "tool", &noise(700_000, 1));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("set");
    let time = UNIX_EPOCH + Duration::new(1_000_000_001, 123_456_789);
    fs::File::options()
        .write(true)
        .open(&path)
        .expect("opens")
        .set_modified(time)
        .expect("set");
    let (sent, received, meter) = transfer(&[path], into.path(), Wire::Clean).await;
    assert_eq!(
        sent.expect("sent"),
        Sent {
            complete: 1,
            failed: 0
        }
    );
    assert_eq!(
        received.expect("received"),
        Received {
            fetched: 1,
            ..Received::default()
        }
    );
    assert_eq!(tree(into.path()), tree(from.path()));
    let metadata = fs::metadata(into.path().join("tool")).expect("there");
    assert_eq!(metadata.modified().expect("a time"), time);
    assert_eq!(metadata.permissions().mode() & 0o100, 0o100);
    let counters = meter.snapshot();
    assert_eq!(
        (counters.bytes_total, counters.bytes_moved),
        (700_000, 700_000)
    );
    assert_eq!((counters.files_total, counters.files_done), (1, 1));
}

#[tokio::test]
async fn folder_with_many_small_files_and_empty_ones_arrives() {
    let (from, into) = folders();
    for i in 0..500 {
        file(&from, &format!("top/{}/{i}", i % 7), &noise(i, 2));
    }
    fs::create_dir_all(from.path().join("top/empty/deeper")).expect("created");
    let single = file(&from, "single", b"");
    let paths = [from.path().join("top"), single];
    let (sent, received, _) = transfer(&paths, into.path(), Wire::Clean).await;
    assert_eq!(sent.expect("sent").complete, 501);
    assert_eq!(received.expect("received").fetched, 501);
    assert_eq!(tree(into.path()), tree(from.path()));
}

#[tokio::test]
async fn transfer_cut_anywhere_resumes_and_never_shows_a_half_file() {
    let (from, _) = folders();
    let big = noise(600_000, 3);
    for (name, bytes) in [
        ("d/a", &big[..10]),
        ("d/big", &big),
        ("d/z", &big[..70_000]),
    ] {
        file(&from, name, bytes);
    }
    let paths = [from.path().join("d")];
    let whole = tree(from.path());
    for cut in (0..400).step_by(13).chain((400..671_000).step_by(39_119)) {
        let into = tempfile::tempdir().expect("a folder");
        let (_, received, _) = transfer(&paths, into.path(), Wire::CutAfter(cut)).await;
        let stopped = received.expect_err("cut");
        assert!(stopped.error.is_resumable(), "{cut}: {:?}", stopped.error);
        for (name, bytes) in tree(into.path()) {
            if !name.contains(".wiremesh-") {
                assert_eq!(whole.get(&name), Some(&bytes), "{name} after {cut}");
            }
        }
        let safe = stopped.part.map_or(0, |(_, safe)| safe);
        let (sent, received, meter) = transfer(&paths, into.path(), Wire::Clean).await;
        let received = received.expect("resumes");
        assert_eq!(received.fetched + received.kept, 3, "{cut}");
        assert_eq!(received.kept, stopped.complete, "{cut}");
        assert_eq!(sent.expect("sent").complete, 3);
        assert_eq!(tree(into.path()), whole, "{cut}");
        let counters = meter.snapshot();
        assert_eq!(
            counters.bytes_moved + counters.bytes_kept,
            counters.bytes_total,
            "{cut}"
        );
        assert!(counters.bytes_kept >= safe, "{cut}");
        if cut > 500_000 {
            assert!(counters.bytes_kept > 200_000, "{cut}: {counters:?}");
        }
    }
}

#[tokio::test]
async fn damaged_data_does_not_become_a_file() {
    let (from, into) = folders();
    let path = file(&from, "f", &noise(500_000, 4));
    let (sent, received, _) = transfer(from_ref(&path), into.path(), Wire::Damage(400_000)).await;
    assert_eq!(
        sent.expect("both ends agree"),
        Sent {
            complete: 0,
            failed: 1
        }
    );
    let received = received.expect("ran to its end");
    assert_eq!(received.failed.len(), 1);
    assert!(received.failed[0].1.contains("hash"));
    assert!(tree(into.path()).is_empty());
    let (_, received, _) = transfer(&[path], into.path(), Wire::Clean).await;
    assert_eq!(received.expect("second try").fetched, 1);
}

#[tokio::test]
async fn damaged_part_on_the_disk_is_fetched_again() {
    let (from, into) = folders();
    let path = file(&from, "f", &noise(500_000, 5));
    let (_, received, _) = transfer(from_ref(&path), into.path(), Wire::CutAfter(400_000)).await;
    let (_, safe) = received.expect_err("cut").part.expect("a part");
    assert!(safe > 200_000);
    let part = into.path().join(".f.wiremesh-part");
    let mut bytes = fs::read(&part).expect("reads");
    bytes[1000] ^= 1;
    fs::write(&part, bytes).expect("written");
    let (_, received, meter) = transfer(&[path], into.path(), Wire::Clean).await;
    assert_eq!(received.expect("received").fetched, 1);
    assert_eq!(meter.snapshot().bytes_kept, 0);
    assert_eq!(tree(into.path()), tree(from.path()));
}

#[tokio::test]
async fn source_that_changed_since_is_sent_from_the_start() {
    let (from, into) = folders();
    let path = file(&from, "f", &noise(500_000, 6));
    let time = fs::metadata(&path)
        .and_then(|m| m.modified())
        .expect("a time");
    let (_, received, _) = transfer(from_ref(&path), into.path(), Wire::CutAfter(400_000)).await;
    assert!(received.expect_err("cut").part.is_some());
    // The same size and even the same time: only the hash of the beginning tells.
    file(&from, "f", &noise(500_000, 7));
    fs::File::options()
        .write(true)
        .open(&path)
        .expect("opens")
        .set_modified(time)
        .expect("set");
    let (_, received, meter) = transfer(&[path], into.path(), Wire::Clean).await;
    assert_eq!(received.expect("received").fetched, 1);
    assert_eq!(meter.snapshot().bytes_kept, 0);
    assert_eq!(tree(into.path()), tree(from.path()));
}

#[tokio::test]
async fn source_that_changes_during_the_transfer_is_reported() {
    let (from, into) = folders();
    let path = file(&from, "f", b"12345");
    let source = Arc::new(walk(&[path]).expect("walks").source);
    file(&from, "f", b"123456");
    let (sender, receiver) = duplex(64 * 1024);
    let (r, w) = split(sender);
    let (rr, rw) = split(receiver);
    let (_, received) = tokio::join!(
        serve(r, w, &SECRET, source, Arc::default()),
        receive(
            rr,
            rw,
            &SECRET,
            options(into.path()),
            Arc::default(),
            std::future::pending()
        ),
    );
    let received = received.expect("ran to its end");
    assert!(received.failed[0].1.contains("changed"), "{received:?}");
    assert!(tree(into.path()).is_empty());
}

#[tokio::test]
async fn existing_file_is_overwritten_only_with_permission() {
    let (from, into) = folders();
    let path = file(&from, "f", b"new");
    file(&into, "f", b"mine, longer");
    let (_, received, _) = transfer(from_ref(&path), into.path(), Wire::Clean).await;
    let error = received.expect_err("refuses").error;
    assert!(matches!(error, TransferError::WouldOverwrite(_)));
    for (answer, expected) in [(Answer::No, &b"mine, longer"[..]), (Answer::Yes, b"new")] {
        let overwrite = Overwrite::Ask(Arc::new(move |_| answer));
        let asking = Options {
            overwrite,
            ..options(into.path())
        };
        let (_, received, _) = transfer_with(from_ref(&path), asking, Wire::Clean, SECRET).await;
        let received = received.expect("ran to its end");
        assert_eq!(received.declined.len(), usize::from(answer == Answer::No));
        assert_eq!(fs::read(into.path().join("f")).expect("there"), expected);
    }
}

#[tokio::test]
async fn equal_looking_file_with_other_content_is_not_touched_without_permission() {
    let (from, into) = folders();
    let path = file(&from, "f", b"abc");
    let here = file(&into, "f", b"abd");
    let time = fs::metadata(&path)
        .and_then(|m| m.modified())
        .expect("a time");
    fs::File::options()
        .write(true)
        .open(&here)
        .expect("opens")
        .set_modified(time)
        .expect("set");
    let (_, received, _) = transfer(from_ref(&path), into.path(), Wire::Clean).await;
    assert_eq!(received.expect("ran to its end").failed.len(), 1);
    assert_eq!(fs::read(&here).expect("there"), b"abd");
    let always = Options {
        overwrite: Overwrite::Always,
        ..options(into.path())
    };
    let (_, received, _) = transfer_with(&[path], always, Wire::Clean, SECRET).await;
    assert_eq!(received.expect("received").fetched, 1);
    assert_eq!(fs::read(&here).expect("there"), b"abc");
}

#[tokio::test]
async fn wrong_secret_is_told_nothing() {
    let (from, into) = folders();
    let path = file(&from, "f", b"abc");
    let other = *b"sixteen bytes no";
    let (sent, received, _) =
        transfer_with(&[path], options(into.path()), Wire::Clean, other).await;
    assert!(matches!(sent, Err(TransferError::Refused(Refusal::Secret))));
    let error = received.expect_err("refused").error;
    assert!(
        matches!(error, TransferError::Refused(Refusal::Secret)),
        "{error:?}"
    );
    assert!(tree(into.path()).is_empty());
}

#[tokio::test]
async fn full_disk_leaves_a_part_that_resumes() {
    let (from, into) = folders();
    let path = file(&from, "f", &noise(900_000, 8));
    let small = Options {
        room: Some(600_000),
        ..options(into.path())
    };
    let (sent, received, _) = transfer_with(from_ref(&path), small, Wire::Clean, SECRET).await;
    assert!(sent.is_err());
    let stopped = received.expect_err("full");
    assert!(
        matches!(stopped.error, TransferError::DiskFull(_)),
        "{:?}",
        stopped.error
    );
    let (_, safe) = stopped.part.expect("a part");
    assert!(safe > 400_000, "{safe}");
    assert!(!into.path().join("f").exists());
    let (_, received, meter) = transfer(&[path], into.path(), Wire::Clean).await;
    assert_eq!(received.expect("received").fetched, 1);
    assert_eq!(meter.snapshot().bytes_kept, safe);
    assert_eq!(tree(into.path()), tree(from.path()));
}

#[tokio::test]
async fn cancelled_receiver_saves_what_has_arrived() {
    let (from, into) = folders();
    let path = file(&from, "f", &noise(3_000_000, 9));
    let source = Arc::new(walk(from_ref(&path)).expect("walks").source);
    let (sender, receiver) = duplex(64 * 1024);
    let (r, w) = split(sender);
    let (rr, rw) = split(receiver);
    let meter = Arc::new(Meter::default());
    let watched = Arc::clone(&meter);
    let cancel = async move {
        while watched.snapshot().bytes_moved < 1_000_000 {
            tokio::task::yield_now().await;
        }
    };
    let sending = serve(r, w, &SECRET, source, Arc::default());
    let receiving = receive(rr, rw, &SECRET, options(into.path()), meter, cancel);
    let (sent, received) = tokio::join!(sending, receiving);
    assert!(sent.is_err());
    let stopped = received.expect_err("cancelled");
    assert!(matches!(stopped.error, TransferError::Interrupted));
    assert!(stopped.part.expect("a part").1 >= 500_000);
    let (_, received, _) = transfer(&[path], into.path(), Wire::Clean).await;
    assert_eq!(received.expect("received").fetched, 1);
    assert_eq!(tree(into.path()), tree(from.path()));
}

#[tokio::test]
async fn question_is_asked_once_per_conflict_before_anything_changes() {
    let (from, into) = folders();
    let a = file(&from, "a", b"new a");
    let b = file(&from, "b", b"new b");
    file(&into, "a", b"my a!!");
    file(&into, "b", b"my b!!");
    let asked = Arc::new(Mutex::new(0));
    let count = Arc::clone(&asked);
    let overwrite = Overwrite::Ask(Arc::new(move |_| {
        let mut count = count.lock().expect("not poisoned");
        *count += 1;
        if *count == 1 {
            Answer::Yes
        } else {
            Answer::Abort
        }
    }));
    let asking = Options {
        overwrite,
        ..options(into.path())
    };
    let (_, received, _) = transfer_with(&[a, b], asking, Wire::Clean, SECRET).await;
    assert!(matches!(
        received.expect_err("aborted").error,
        TransferError::Interrupted
    ));
    assert_eq!(*asked.lock().expect("not poisoned"), 2);
    assert_eq!(fs::read(into.path().join("a")).expect("there"), b"my a!!");
}
