//! How servers read messages.

use prost::Message;
use std::marker::PhantomData;
use tonic::{
    Code, Status,
    codec::{Codec, DecodeBuf, Decoder},
};
use tonic_prost::ProstCodec;

/// As Prost's own, but that a request which cannot be read is its sender's fault and not the node's: INVALID_ARGUMENT,
/// and not INTERNAL.
pub struct ServerCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for ServerCodec<T, U> {
    fn default() -> Self {
        ServerCodec(PhantomData)
    }
}

impl<T: Message + Send + 'static, U: Message + Default + Send + 'static> Codec for ServerCodec<T, U> {
    type Encode = T;
    type Decode = U;
    type Encoder = <ProstCodec<T, U> as Codec>::Encoder;
    type Decoder = ServerDecoder<<ProstCodec<T, U> as Codec>::Decoder>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::default().encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        ServerDecoder(ProstCodec::<T, U>::default().decoder())
    }
}

/// See [`ServerCodec`].
pub struct ServerDecoder<D>(D);

impl<D: Decoder<Error = Status>> Decoder for ServerDecoder<D> {
    type Item = D::Item;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<D::Item>, Status> {
        self.0.decode(from).map_err(|status| match status.code() {
            Code::Internal => {
                Status::invalid_argument(format!("the message cannot be read: {}", status.message()))
            }
            _ => status,
        })
    }
}
