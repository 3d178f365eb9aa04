//! Messages of the kernel's NBD driver (`linux/nbd-netlink.h`), as generic netlink packets: no sockets here.

use std::io::Cursor;

use neli::err::{BuilderError, DeError};
use neli::genl::{
    AttrTypeBuilder, Genlmsghdr, GenlmsghdrBuilder, Nlattr, NlattrBuilder, NoUserHeader,
};
use neli::nl::NlPayload;
use neli::types::{Buffer, GenlBuffer, NlBuffer};
use neli::{FromBytesWithInput as _, Size, ToBytes};

/// Name of the generic netlink family.
pub(super) const FAMILY: &str = "nbd";
/// Name of its only multicast group.
pub(super) const GROUP: &str = "nbd_mc_group";
const VERSION: u8 = 1;

/// `NBD_CMD_*`
const CONNECT: u8 = 1;
const DISCONNECT: u8 = 2;
const RECONFIGURE: u8 = 3;
const LINK_DEAD: u8 = 4;

/// `NBD_ATTR_*`
const INDEX: u16 = 1;
const SIZE_BYTES: u16 = 2;
const BLOCK_SIZE_BYTES: u16 = 3;
const TIMEOUT: u16 = 4;
const SERVER_FLAGS: u16 = 5;
const CLIENT_FLAGS: u16 = 6;
const SOCKETS: u16 = 7;
const DEAD_CONN_TIMEOUT: u16 = 8;
const BACKEND_IDENTIFIER: u16 = 10;
/// `NBD_SOCK_ITEM` and, in it, `NBD_SOCK_FD`
const SOCK_ITEM: u16 = 1;
const SOCK_FD: u16 = 1;

/// A message to or from the driver.
pub(super) type Message = Genlmsghdr<u8, u16>;
type Attribute = Nlattr<u16, Buffer>;

/// What a device is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Terms {
    /// In bytes.
    pub(crate) size: u64,
    /// What the device claims as its logical block, in bytes.
    pub(crate) block_size: u32,
    /// Transmission flags as the server sent them.
    pub(crate) flags: u16,
    /// After so many seconds without an answer a request is sent again on another connection. Not 0, which the kernel
    /// takes for 30.
    pub(crate) request_timeout: u32,
    /// So many seconds requests wait while no connection lives; then they fail.
    pub(crate) patience: u32,
    /// What a reconnection must repeat.
    pub(crate) identity: String,
}

/// Makes a device of these sockets.
pub(super) fn connect(
    device: u32,
    terms: &Terms,
    sockets: &[u32],
) -> Result<Message, BuilderError> {
    message(
        CONNECT,
        vec![
            attribute(INDEX, device)?,
            attribute(SIZE_BYTES, terms.size)?,
            attribute(BLOCK_SIZE_BYTES, u64::from(terms.block_size))?,
            attribute(TIMEOUT, u64::from(terms.request_timeout))?,
            attribute(DEAD_CONN_TIMEOUT, u64::from(terms.patience))?,
            attribute(SERVER_FLAGS, u64::from(terms.flags))?,
            // Neither destroyed at the disconnect nor disconnected at the last close: mkfs closes before mount opens.
            attribute(CLIENT_FLAGS, 0_u64)?,
            // A `str` gets its NUL.
            attribute(BACKEND_IDENTIFIER, terms.identity.as_str())?,
            socket_list(sockets)?,
        ],
    )
}

/// Gives a device a socket in a dead one's place.
pub(super) fn reconfigure(
    device: u32,
    identity: &str,
    socket: u32,
) -> Result<Message, BuilderError> {
    message(
        RECONFIGURE,
        vec![
            attribute(INDEX, device)?,
            attribute(BACKEND_IDENTIFIER, identity)?,
            socket_list(&[socket])?,
        ],
    )
}

/// Changes nothing, and is refused (EINVAL) unless the device is connected under that identity.
pub(super) fn probe(device: u32, identity: &str) -> Result<Message, BuilderError> {
    message(
        RECONFIGURE,
        vec![
            attribute(INDEX, device)?,
            attribute(BACKEND_IDENTIFIER, identity)?,
        ],
    )
}

/// Ends a device's connections, whoever uses it.
pub(super) fn disconnect(device: u32) -> Result<Message, BuilderError> {
    message(DISCONNECT, vec![attribute(INDEX, device)?])
}

fn message(command: u8, attributes: Vec<Attribute>) -> Result<Message, BuilderError> {
    Ok(GenlmsghdrBuilder::<u8, u16, NoUserHeader>::default()
        .cmd(command)
        .version(VERSION)
        .attrs(attributes.into_iter().collect::<GenlBuffer<u16, Buffer>>())
        .build()?)
}

fn attribute(kind: u16, value: impl Size + ToBytes) -> Result<Attribute, BuilderError> {
    Ok(NlattrBuilder::default()
        .nla_type(AttrTypeBuilder::default().nla_type(kind).build()?)
        .nla_payload(value)
        .build()?)
}

fn nest(kind: u16, inner: Vec<Attribute>) -> Result<Attribute, BuilderError> {
    let kind = AttrTypeBuilder::default().nla_type(kind).nla_nested(true);
    Ok(NlattrBuilder::default()
        .nla_type(kind.build()?)
        .nla_payload(inner.into_iter().collect::<GenlBuffer<u16, Buffer>>())
        .build()?)
}

fn socket_list(sockets: &[u32]) -> Result<Attribute, BuilderError> {
    let items = sockets
        .iter()
        .map(|socket| nest(SOCK_ITEM, vec![attribute(SOCK_FD, *socket)?]))
        .collect::<Result<_, BuilderError>>()?;
    nest(SOCKETS, items)
}

/// The devices that a datagram of the multicast group says a connection of has died, once for each connection.
/// Other messages say nothing.
///
/// # Errors
/// If it is not netlink, or a message has no device.
pub(super) fn dead_links(datagram: &[u8], family: u16) -> Result<Vec<u32>, DeError> {
    let mut cursor = Cursor::new(datagram);
    let messages = NlBuffer::<u16, Buffer>::from_bytes_with_input(&mut cursor, datagram.len())?;
    let mut dead = Vec::new();
    for message in messages.iter() {
        let NlPayload::Payload(payload) = message.nl_payload() else {
            continue;
        };
        if *message.nl_type() != family {
            continue;
        }
        let bytes: &[u8] = payload.as_ref();
        let message = Message::from_bytes_with_input(&mut Cursor::new(bytes), bytes.len())?;
        if *message.cmd() == LINK_DEAD {
            let attributes = message.attrs().get_attr_handle();
            dead.push(attributes.get_attr_payload_as::<u32>(INDEX)?);
        }
    }
    Ok(dead)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use neli::consts::nl::NlmF;
    use neli::nl::NlmsghdrBuilder;

    use super::*;

    const NBD: u16 = 0x21;

    /// The bytes of a message behind the netlink header; numbers are the machine's.
    fn bytes(message: &Message) -> Vec<u8> {
        let mut cursor = Cursor::new(vec![0; message.padded_size()]);
        message.to_bytes(&mut cursor).unwrap();
        cursor.into_inner()
    }

    fn datagram(message: Message, family: u16) -> Vec<u8> {
        let message = NlmsghdrBuilder::default()
            .nl_type(family)
            .nl_flags(NlmF::empty())
            .nl_payload(NlPayload::Payload(message))
            .build()
            .unwrap();
        let mut cursor = Cursor::new(vec![0; message.padded_size()]);
        message.to_bytes(&mut cursor).unwrap();
        cursor.into_inner()
    }

    /// Attributes as the kernel reads them: length, kind, value, filled up to four bytes.
    fn raw(kind: u16, value: &[u8]) -> Vec<u8> {
        let len = u16::try_from(4 + value.len()).unwrap();
        let mut bytes = len.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn raw_sockets(sockets: &[u32]) -> Vec<u8> {
        let item = |fd: &u32| raw(0x8001, &raw(1, &fd.to_ne_bytes()));
        raw(0x8007, &sockets.iter().flat_map(item).collect::<Vec<u8>>())
    }

    #[test]
    fn a_connect_has_the_attributes_that_the_kernel_wants() {
        let terms = Terms {
            size: 1 << 30,
            block_size: 4096,
            flags: 0x56d,
            request_timeout: 5,
            patience: 300,
            identity: "sealgate:x".into(),
        };
        let expected = [
            &[1, 1, 0, 0][..],
            &raw(1, &7_u32.to_ne_bytes()),
            &raw(2, &(1_u64 << 30).to_ne_bytes()),
            &raw(3, &4096_u64.to_ne_bytes()),
            &raw(4, &5_u64.to_ne_bytes()),
            &raw(8, &300_u64.to_ne_bytes()),
            &raw(5, &0x56d_u64.to_ne_bytes()),
            &raw(6, &0_u64.to_ne_bytes()),
            &raw(10, b"sealgate:x\0"),
            &raw_sockets(&[8, 9]),
        ];
        assert_eq!(
            bytes(&connect(7, &terms, &[8, 9]).unwrap()),
            expected.concat()
        );
    }

    #[test]
    fn a_reconnection_repeats_the_identity_and_has_one_socket() {
        let expected = [
            &[3, 1, 0, 0][..],
            &raw(1, &7_u32.to_ne_bytes()),
            &raw(10, b"me\0"),
            &raw_sockets(&[5]),
        ];
        assert_eq!(bytes(&reconfigure(7, "me", 5).unwrap()), expected.concat());
        let without_sockets = &bytes(&reconfigure(7, "me", 5).unwrap())[..20];
        assert_eq!(bytes(&probe(7, "me").unwrap()), without_sockets);
        let expected = [&[2, 1, 0, 0][..], &raw(1, &7_u32.to_ne_bytes())];
        assert_eq!(bytes(&disconnect(7).unwrap()), expected.concat());
    }

    #[test]
    fn dead_links_are_told_one_by_one_and_other_messages_say_nothing() {
        let dead = |device: u32| {
            let index = attribute(INDEX, device).unwrap();
            message(LINK_DEAD, vec![index]).unwrap()
        };
        let both = [
            datagram(dead(3), NBD),
            datagram(dead(3), NBD + 1),
            datagram(disconnect(3).unwrap(), NBD),
            datagram(dead(4), NBD),
        ];
        assert_eq!(dead_links(&both.concat(), NBD).unwrap(), [3, 4]);
        assert!(dead_links(&[], NBD).unwrap().is_empty());
        let nameless = datagram(message(LINK_DEAD, vec![]).unwrap(), NBD);
        dead_links(&nameless, NBD).unwrap_err();
        let whole = datagram(dead(3), NBD);
        for end in 1..whole.len() {
            dead_links(&whole[..end], NBD).unwrap_err();
        }
    }
}
