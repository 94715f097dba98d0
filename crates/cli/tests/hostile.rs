//! Transfers with a side that lies: nothing outside the target folder is touched, and whoever
//! breaks the protocol is left.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::{AsyncWriteExt, duplex, split};
use wiremesh_cli::transfer::{
    Entry, Kind, Manifest, Modified, Options, Overwrite, Received, TransferError,
    frame::{self, Frame},
    receive,
    receive::Stopped,
    serve, walk,
};
use zeroize::Zeroizing;

const SECRET: [u8; 16] = *b"sixteen bytes ok";

fn options(into: &Path) -> Options {
    Options {
        into: into.to_owned(),
        overwrite: Overwrite::Refuse,
        room: None,
    }
}

/// Everything below a folder.
fn tree(dir: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for item in fs::read_dir(folder).expect("lists") {
            let path = item.expect("an item").path();
            if path.is_dir() {
                folders.push(path.clone());
            }
            found.insert(path);
        }
    }
    found
}

/// Plays a sender that says exactly `frames` after the greeting.
async fn hostile(into: &Path, frames: Vec<Frame>) -> Result<Received, Stopped> {
    let (mut sender, receiver) = duplex(1 << 20);
    let (rr, rw) = split(receiver);
    let play = async {
        frame::read(&mut sender).await.expect("a greeting");
        for frame in &frames {
            let bytes = frame::emit(frame);
            if sender.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = sender.shutdown().await;
        let _ = tokio::io::copy(&mut sender, &mut tokio::io::sink()).await;
    };
    let receiving = receive(
        rr,
        rw,
        &SECRET,
        options(into),
        Arc::default(),
        std::future::pending(),
    );
    tokio::join!(play, receiving).1
}

fn entry(path: &str, size: u64) -> Entry {
    let modified = Modified {
        seconds: 1,
        nanos: 0,
    };
    Entry {
        path: path.into(),
        kind: Kind::File {
            size,
            modified,
            executable: false,
        },
    }
}

#[tokio::test]
async fn hostile_names_write_nothing() {
    let outer = tempfile::tempdir().expect("a folder");
    let into = outer.path().join("into");
    fs::create_dir(&into).expect("created");
    for path in [
        "../evil",
        "/tmp/evil",
        "a/../../evil",
        "",
        ".",
        "..",
        "x\\..\\evil",
        "a\u{7}",
    ] {
        let bytes = b"evil".to_vec();
        let hash = *blake3::hash(&bytes).as_bytes();
        let frames = vec![
            Frame::Entries(vec![entry(path, 4)]),
            Frame::EntriesEnd(1),
            Frame::File {
                entry: 0,
                offset: 0,
            },
            Frame::Data(bytes),
            Frame::Done(hash),
        ];
        let stopped = hostile(&into, frames).await.expect_err("refused");
        assert!(
            matches!(stopped.error, TransferError::BadName { .. }),
            "{path:?}"
        );
        assert!(!stopped.error.to_string().chars().any(char::is_control));
    }
    assert_eq!(tree(outer.path()).len(), 1);
    // The list itself is checked, not only the frames.
    assert!(Manifest::new(vec![entry("../x", 1)]).is_err());
}

#[tokio::test]
async fn sender_that_breaks_the_protocol_is_left() {
    let list = || vec![Frame::Entries(vec![entry("f", 4)]), Frame::EntriesEnd(1)];
    let file = |offset| Frame::File { entry: 0, offset };
    for more in [
        vec![Frame::File {
            entry: 1,
            offset: 0,
        }],
        vec![file(3)],
        vec![file(0), Frame::Data(vec![0; 5])],
        vec![file(0), Frame::Data(vec![])],
        vec![file(0), Frame::Data(vec![0; 3]), Frame::Done([0; 32])],
        vec![file(0), Frame::WantEnd],
        vec![Frame::Hello {
            version: 1,
            secret: Zeroizing::new(SECRET),
        }],
    ] {
        let into = tempfile::tempdir().expect("a folder");
        let mut frames = list();
        frames.extend(more.clone());
        let stopped = hostile(into.path(), frames).await.expect_err("refused");
        assert!(
            matches!(stopped.error, TransferError::Protocol(_)),
            "{more:?}"
        );
        assert!(!into.path().join("f").exists());
    }
    let into = tempfile::tempdir().expect("a folder");
    let wrong_count = vec![Frame::Entries(vec![entry("f", 4)]), Frame::EntriesEnd(2)];
    let stopped = hostile(into.path(), wrong_count)
        .await
        .expect_err("refused");
    assert!(matches!(stopped.error, TransferError::Protocol(_)));
}

#[tokio::test]
async fn receiver_that_asks_for_nonsense_is_left() {
    let from = tempfile::tempdir().expect("a folder");
    let top = from.path().join("d/f");
    fs::create_dir(from.path().join("d")).expect("created");
    fs::write(&top, b"abc").expect("written");
    let source = Arc::new(
        walk(&[top.parent().expect("d").to_owned()])
            .expect("walks")
            .source,
    );
    let hello = Frame::Hello {
        version: 1,
        secret: Zeroizing::new(SECRET),
    };
    let want = |entry| {
        Frame::Want(frame::Want {
            entry,
            offset: 0,
            prefix: [0; 32],
            verify_only: false,
        })
    };
    for frames in [
        vec![want(0)],
        vec![hello.clone(), want(0), Frame::WantEnd],
        vec![hello.clone(), want(9), Frame::WantEnd],
        vec![
            hello.clone(),
            Frame::Bye {
                complete: 0,
                failed: 0,
            },
        ],
        vec![hello.clone(), Frame::WantEnd, Frame::WantEnd],
    ] {
        let (mut receiver, sender) = duplex(1 << 20);
        let (r, w) = split(sender);
        let play = async {
            for frame in &frames {
                let _ = receiver.write_all(&frame::emit(frame)).await;
            }
            let _ = receiver.shutdown().await;
            let _ = tokio::io::copy(&mut receiver, &mut tokio::io::sink()).await;
        };
        let serving = serve(r, w, &SECRET, Arc::clone(&source), Arc::default());
        let (_, sent) = tokio::join!(play, serving);
        assert!(sent.is_err(), "{frames:?}");
    }
}
