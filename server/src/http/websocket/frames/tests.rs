use actix_web::error::PayloadError;
use futures_util::stream;

use super::*;

/// A masked frame, as clients send it.
fn frame(first: u8, data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match data.len() {
        length @ 0..126 => bytes.push(0x80 | u8::try_from(length).unwrap()),
        length => {
            bytes.push(0xfe);
            bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
    }
    let mask = [1, 2, 3, 4];
    bytes.extend(mask);
    bytes.extend(
        data.iter()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    bytes
}

/// Everything that comes of these bytes, sent in pieces of `size`.
async fn all(bytes: &[u8], size: usize) -> Vec<Result<Came, Offence>> {
    let pieces: Vec<Result<Bytes, PayloadError>> = bytes
        .chunks(size)
        .map(|piece| Ok(Bytes::copy_from_slice(piece)))
        .collect();
    let mut incoming = Incoming::new(Payload::Stream {
        payload: Box::pin(stream::iter(pieces)),
    });
    let mut came = Vec::new();
    while let Some(one) = incoming.next().await {
        let over = one.is_err();
        came.push(one);
        if over {
            break;
        }
    }
    came
}

fn said(text: &str) -> Came {
    Came::Text(text.to_owned())
}

#[tokio::test]
async fn messages_come_whole_in_whatever_pieces_and_parts_they_are_sent() {
    let bytes = [
        frame(0x81, b"bind 1"),
        frame(0x01, "bind-with-token \u{e4}".as_bytes().split_at(17).0),
        frame(0x89, b"there?"),
        frame(0x80, "bind-with-token \u{e4}".as_bytes().split_at(17).1),
        frame(0x8a, b""),
        frame(0x88, b""),
    ]
    .concat();
    for size in [1, 3, 7, bytes.len()] {
        let expected = [
            Ok(said("bind 1")),
            Ok(Came::Ping(Bytes::from_static(b"there?"))),
            Ok(said("bind-with-token \u{e4}")),
            Ok(Came::Pong),
            Ok(Came::Close),
        ];
        assert_eq!(all(&bytes, size).await, expected, "in pieces of {size}");
    }
}

#[tokio::test]
async fn what_is_too_long_is_noticed_before_all_of_it_is_here() {
    let long = vec![b'x'; LONGEST];
    assert_eq!(all(&frame(0x81, &long), 1000).await.len(), 1);
    assert!(all(&frame(0x81, &long), 1000).await[0].is_ok());
    let longer = vec![b'x'; LONGEST + 1];
    assert_eq!(all(&frame(0x81, &longer), 100_000).await, [Err(Offence::TooLong)]);
    // A frame of which it is said that it has 2^40 bytes.
    let mut endless = vec![0x81, 0x80 | 127];
    endless.extend((1_u64 << 40).to_be_bytes());
    endless.extend([0; 4]);
    endless.extend(vec![b'x'; LONGEST + 1]);
    assert_eq!(all(&endless, 512).await, [Err(Offence::TooLong)]);
    let parts = [frame(0x01, &long), frame(0x00, b"y"), frame(0x80, b"")].concat();
    assert_eq!(all(&parts, 512).await, [Err(Offence::TooLong)]);
}

#[tokio::test]
async fn what_is_no_text_is_refused() {
    assert_eq!(all(&frame(0x82, b"bind 1"), 100).await, [Err(Offence::NotText)]);
    assert_eq!(all(&frame(0x02, b"bind 1"), 100).await, [Err(Offence::NotText)]);
    assert_eq!(
        all(&frame(0x81, &[0xff, 0xfe]), 100).await,
        [Err(Offence::NotUtf8)]
    );
    for bad in [
        // Not masked, reserved bits, an unknown code, a part of nothing, a long ping, a close with half a code.
        b"\x81\x01x".to_vec(),
        frame(0xc1, b"x"),
        frame(0x83, b"x"),
        frame(0x80, b"x"),
        frame(0x89, &[0; 126]),
        frame(0x88, b"x"),
    ] {
        assert_eq!(all(&bad, 100).await, [Err(Offence::Protocol)], "{bad:?}");
    }
}

#[tokio::test]
async fn the_last_word_comes_behind_everything_else_and_then_the_end() {
    let (out, ending, mut body) = outgoing(Duration::from_millis(20));
    out.send(text("one"), None).await.unwrap();
    assert_eq!(
        out.send(text("two"), None).await,
        Err(Unsent::Slow),
        "nobody takes it"
    );
    out.offer(ping());
    ending.say(close(CloseCode::Again, "slow"));
    drop(out);
    assert_eq!(body.next().await.unwrap().unwrap(), ping(), "between others");
    assert_eq!(body.next().await.unwrap().unwrap(), text("one"));
    assert_eq!(
        body.next().await.unwrap().unwrap(),
        close(CloseCode::Again, "slow")
    );
    drop(ending);
    assert!(body.next().await.is_none());
}

#[test]
fn a_reason_is_cut_where_a_close_frame_ends() {
    let bytes = close(CloseCode::Policy, &"\u{e4}".repeat(100));
    assert_eq!(bytes.len(), 2 + 2 + 122);
    assert!(std::str::from_utf8(&bytes[4..]).is_ok());
}
