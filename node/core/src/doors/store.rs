//! The service `god.v1.Store`.

use super::{
    Service, deadline,
    meter::Method,
    pipeline::{Pipeline, Replies},
};
use crate::{budget::Budget, quorum::Collected, stop::Stop};
use futures::FutureExt;
use god_proto::{
    MAX_BATCH, MAX_MESSAGE,
    v1::{
        Answer, BatchReply, BatchRequest, Call, CountReply, CountRequest, DeleteRequest, GetReply,
        GetRequest, PipelineRequest, PutRequest, RankReply, RankRequest, Reason, Rejected, ScanReply,
        ScanRequest, SelectReply, SelectRequest, WriteReply, answer, call, store_server::Store,
    },
};
use prost::Message as _;
use std::sync::Arc;
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};

/// See the module.
pub(super) struct StoreDoor {
    service: Arc<dyn Service>,
    budget: Budget,
    stop: Stop,
    put: Method,
    delete: Method,
    get: Method,
    batch: Method,
    pipeline: Arc<Method>,
    scan: Method,
    count: Method,
    rank: Method,
    select: Method,
}

impl StoreDoor {
    pub fn new(service: Arc<dyn Service>, budget: Budget, stop: Stop) -> StoreDoor {
        let method = |name| Method::new("grpc", name);
        StoreDoor {
            service,
            budget,
            stop,
            put: method("put"),
            delete: method("delete"),
            get: method("get"),
            batch: method("batch"),
            pipeline: Arc::new(method("pipeline")),
            scan: method("scan"),
            count: method("count"),
            rank: method("rank"),
            select: method("select"),
        }
    }

    /// A batch of one.
    async fn one(&self, method: &Method, call: call::Call) -> Result<answer::Answer, Status> {
        let since = Instant::now();
        let answers = answer(&*self.service, vec![Call { call: Some(call) }]).await;
        method.answered(1, since);
        for reason in answers.iter().filter_map(Answer::failure) {
            method.failed(reason);
        }
        let answer = answers.into_iter().next().and_then(|answer| answer.answer);
        answer.ok_or_else(|| Status::internal("the node gave no answer"))
    }

    async fn write(&self, method: &Method, call: call::Call) -> Result<Response<WriteReply>, Status> {
        match self.one(method, call).await? {
            answer::Answer::Write(reply) => Ok(Response::new(reply)),
            answer::Answer::Get(_) => Err(Status::internal("a write was answered like a read")),
        }
    }
}

/// Answers calls in their order. What is wrong with one the node says itself.
async fn answer(service: &dyn Service, calls: Vec<Call>) -> Vec<Answer> {
    if calls.is_empty() {
        return Vec::new();
    }
    let mut all = Collected::new(calls.len());
    service.batch_to(calls, &mut all).await;
    all.into_answers()
}

/// What is left of a message for its answers. The rest is for whatever stands around them.
const ANSWER_BYTES: usize = MAX_MESSAGE - (MAX_BATCH << 9);

/// Answers that one message holds: values for which there is no more room are refused, each by itself.
fn fit(mut answers: Vec<Answer>) -> Vec<Answer> {
    let mut left = ANSWER_BYTES;
    for answer in &mut answers {
        let bytes = answer.encoded_len();
        if bytes > left && matches!(answer.answer, Some(answer::Answer::Get(_))) {
            let message = format!(
                "the values together exceed {} MiB; ask for fewer, or use Pipeline",
                MAX_MESSAGE >> 20
            );
            *answer = Answer::refused(true, Rejected::of(Reason::Invalid, message));
        } else {
            left = left.saturating_sub(bytes);
        }
    }
    answers
}

macro_rules! ask {
    ($self:ident, $request:ident, $method:ident) => {{
        let (metadata, _, mut request) = $request.into_parts();
        deadline::limit(&mut request, &metadata);
        let since = Instant::now();
        let reply = $self.service.$method(request).await;
        $self.$method.answered(1, since);
        if let Some(failed) = &reply.failed {
            $self.$method.failed(failed.reason().as_str_name());
        }
        Ok(Response::new(reply))
    }};
}

#[tonic::async_trait]
impl Store for StoreDoor {
    type PipelineStream = Replies;

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<WriteReply>, Status> {
        let (metadata, _, mut request) = request.into_parts();
        deadline::limit(&mut request, &metadata);
        self.write(&self.put, call::Call::Put(request)).await
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<WriteReply>, Status> {
        let (metadata, _, mut request) = request.into_parts();
        deadline::limit(&mut request, &metadata);
        self.write(&self.delete, call::Call::Delete(request)).await
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetReply>, Status> {
        let (metadata, _, mut request) = request.into_parts();
        deadline::limit(&mut request, &metadata);
        match self.one(&self.get, call::Call::Get(request)).await? {
            answer::Answer::Get(reply) => Ok(Response::new(reply)),
            answer::Answer::Write(_) => Err(Status::internal("a read was answered like a write")),
        }
    }

    async fn batch(&self, request: Request<BatchRequest>) -> Result<Response<BatchReply>, Status> {
        let (metadata, _, BatchRequest { mut calls }) = request.into_parts();
        if calls.len() > MAX_BATCH {
            self.batch.failed("INVALID_ARGUMENT");
            return Err(Status::invalid_argument(format!(
                "the batch has {} calls, the most is {MAX_BATCH}: send it in parts, or use Pipeline",
                calls.len()
            )));
        }
        deadline::limit_calls(&mut calls, &metadata);
        let since = Instant::now();
        let answers = fit(answer(&*self.service, calls).await);
        self.batch.answered(answers.len(), since);
        for reason in answers.iter().filter_map(Answer::failure) {
            self.batch.failed(reason);
        }
        Ok(Response::new(BatchReply { answers }))
    }

    async fn pipeline(
        &self,
        request: Request<Streaming<PipelineRequest>>,
    ) -> Result<Response<Replies>, Status> {
        Ok(Response::new(Pipeline::start(
            Arc::clone(&self.service),
            Arc::clone(&self.pipeline),
            self.budget.clone(),
            request.into_inner(),
            self.stop.clone().stopped().boxed(),
        )))
    }

    async fn scan(&self, request: Request<ScanRequest>) -> Result<Response<ScanReply>, Status> {
        ask!(self, request, scan)
    }

    async fn count(&self, request: Request<CountRequest>) -> Result<Response<CountReply>, Status> {
        ask!(self, request, count)
    }

    async fn rank(&self, request: Request<RankRequest>) -> Result<Response<RankReply>, Status> {
        ask!(self, request, rank)
    }

    async fn select(&self, request: Request<SelectRequest>) -> Result<Response<SelectReply>, Status> {
        ask!(self, request, select)
    }
}
