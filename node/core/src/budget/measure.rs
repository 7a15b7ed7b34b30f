//! What a message takes when it is decoded, found before it is: elements of repeated fields are counted on the wire.
//!
//! Two bytes on the wire are an empty message of hundreds of bytes in a list. Which fields are lists follows from the
//! protocol's descriptors, so that no new message needs a word here.

use bytes::Bytes;
use god_proto::DESCRIPTORS;
use prost::Message as _;
use prost_types::{
    DescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::LazyLock,
};

/// Messages within messages; the protocol's own have far fewer.
const DEEPEST: usize = 32;

/// A method of one of the services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Method {
    asked: usize,
    /// Whether requests follow one another on one stream.
    pub streams: bool,
}

/// A field that can make a message larger than it is on the wire.
#[derive(Clone, Copy)]
enum Field {
    /// A message: whether it is one of many, and of which shape.
    Message(bool, usize),
    /// Bytes or a string, one of many.
    Listed,
    /// Numbers, which may be packed.
    Numbers,
}

#[derive(Default)]
struct Shapes {
    messages: Vec<BTreeMap<u64, Field>>,
    methods: HashMap<String, Method>,
}

static SHAPES: LazyLock<Shapes> = LazyLock::new(Shapes::read);

impl Shapes {
    fn read() -> Shapes {
        // They are this program's own; a test sees that they can be read.
        let files = FileDescriptorSet::decode(DESCRIPTORS).unwrap_or_default().file;
        let mut all: Vec<(String, &DescriptorProto)> = Vec::new();
        for file in &files {
            let mut open: Vec<(String, &DescriptorProto)> =
                file.message_type.iter().map(|message| (format!(".{}", file.package()), message)).collect();
            while let Some((within, message)) = open.pop() {
                let name = format!("{within}.{}", message.name());
                open.extend(message.nested_type.iter().map(|nested| (name.clone(), nested)));
                all.push((name, message));
            }
        }
        let index: HashMap<&str, usize> =
            all.iter().enumerate().map(|(at, (name, _))| (name.as_str(), at)).collect();
        let shape = |message: &DescriptorProto| {
            let field = |field: &prost_types::FieldDescriptorProto| {
                let many = field.label() == Label::Repeated;
                let found = match field.r#type() {
                    Type::Message => index.get(field.type_name()).map(|at| Field::Message(many, *at)),
                    Type::Bytes | Type::String => many.then_some(Field::Listed),
                    _ => many.then_some(Field::Numbers),
                };
                Some((field.number() as u64, found?))
            };
            message.field.iter().filter_map(field).collect()
        };
        let messages = all.iter().map(|(_, message)| shape(message)).collect();
        let mut methods = HashMap::new();
        for file in &files {
            for service in &file.service {
                for method in &service.method {
                    let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                    if let Some(asked) = index.get(method.input_type()) {
                        methods.insert(path, Method { asked: *asked, streams: method.client_streaming() });
                    }
                }
            }
        }
        Shapes { messages, methods }
    }
}

/// The method of a path such as `/god.v1.Store/Put`; none where it is no method of the protocol.
pub(crate) fn method(path: &str) -> Option<Method> {
    SHAPES.methods.get(path).copied()
}

/// How many elements the lists of an encoded request have, in all; packed numbers count as many as fit into one
/// element. `None`: it cannot be read. Cost: O(bytes of structure); content is stepped over.
pub(crate) fn parts(method: Method, message: &[Bytes]) -> Option<usize> {
    let end = message.iter().map(Bytes::len).sum();
    let mut reader = Reader { chunks: message, within: 0, at: 0 };
    let mut parts = 0;
    reader.walk(method.asked, end, DEEPEST, &mut parts)?;
    Some(parts)
}

/// Reads bytes that came in several chunks.
struct Reader<'a> {
    chunks: &'a [Bytes],
    /// Within the first chunk.
    within: usize,
    at: usize,
}

impl Reader<'_> {
    fn byte(&mut self) -> Option<u8> {
        loop {
            let first = self.chunks.first()?;
            if let Some(byte) = first.get(self.within) {
                self.within += 1;
                self.at += 1;
                return Some(*byte);
            }
            self.chunks = &self.chunks[1..];
            self.within = 0;
        }
    }

    fn skip(&mut self, bytes: usize) -> Option<()> {
        self.at += bytes;
        self.within += bytes;
        while let Some(first) = self.chunks.first() {
            if self.within <= first.len() {
                return Some(());
            }
            self.within -= first.len();
            self.chunks = &self.chunks[1..];
        }
        (self.within == 0).then_some(())
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn walk(&mut self, shape: usize, end: usize, deeper: usize, parts: &mut usize) -> Option<()> {
        let fields = SHAPES.messages.get(shape)?;
        while self.at < end {
            let key = self.varint()?;
            let length = match key & 7 {
                0 => {
                    self.varint()?;
                    0
                }
                1 => 8,
                2 => usize::try_from(self.varint()?).ok()?,
                5 => 4,
                _ => return None,
            };
            if length > end.checked_sub(self.at)? {
                return None;
            }
            match fields.get(&(key >> 3)) {
                Some(Field::Message(many, shape)) if key & 7 == 2 => {
                    *parts += usize::from(*many);
                    let end = self.at + length;
                    self.walk(*shape, end, deeper.checked_sub(1)?, parts)?;
                    continue;
                }
                Some(Field::Listed) => *parts += 1,
                Some(Field::Numbers) => *parts += 1 + length / 64,
                _ => {}
            }
            self.skip(length)?;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use god_proto::{
        peer::{Entry, Frame, Request, Write, request},
        v1::{Call, NumberedCall, PipelineRequest, PutRequest, call},
    };

    fn counted(path: &str, message: &impl prost::Message) -> Option<usize> {
        let bytes = Bytes::from(message.encode_to_vec());
        let whole = parts(method(path).unwrap(), std::slice::from_ref(&bytes));
        // However it was cut on its way.
        for size in [1, 3, 7] {
            let chunks: Vec<Bytes> = bytes.chunks(size).map(Bytes::copy_from_slice).collect();
            assert_eq!(parts(method(path).unwrap(), &chunks), whole, "in chunks of {size}");
        }
        whole
    }

    #[test]
    fn elements_of_lists_are_counted_wherever_they_are_and_content_is_not_taken_for_any() {
        let put =
            PutRequest { key: "key".into(), value: b"\x0a\x00".repeat(500).into(), ..PutRequest::default() };
        let call = NumberedCall { id: 1, call: Some(Call { call: Some(call::Call::Put(put)) }) };
        let calls = PipelineRequest { calls: vec![call; 5] };
        assert_eq!(counted("/god.v1.Store/Pipeline", &calls), Some(5));
        let write = Write { entries: vec![Entry::default(); 7] };
        let request = Request { body: Some(request::Body::Write(write)), ..Request::default() };
        let frame = Frame { requests: vec![request; 3], ..Frame::default() };
        assert_eq!(counted("/god.peer.v1.Peer/Exchange", &frame), Some(3 + 3 * 7));
        let empty = PipelineRequest { calls: vec![NumberedCall::default(); 100_000] };
        assert_eq!(counted("/god.v1.Store/Pipeline", &empty), Some(100_000));
    }

    #[test]
    fn what_cannot_be_read_is_nothing() {
        let method = method("/god.v1.Store/Pipeline").unwrap();
        assert!(method.streams);
        for bad in [&b"\x0a"[..], b"\x0a\x05\x00", b"\x0b", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"] {
            assert_eq!(parts(method, &[Bytes::copy_from_slice(bad)]), None, "{bad:?}");
        }
        assert_eq!(parts(method, &[]), Some(0));
        assert_eq!(super::method("/god.v1.Store/NoSuchCall"), None);
    }
}
