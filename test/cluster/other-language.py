"""A client that shares no code with the project: protoc's classes and Python's own gRPC.

usage: other-language.py FOLDER_OF_GENERATED_CLASSES ADDRESS
"""
import importlib.util
import sys

sys.path.insert(0, sys.argv[1])
import grpc  # noqa: E402
import errors_pb2  # noqa: E402
import kv_pb2  # noqa: E402

# By its path: the package google of the distribution hides the generated one.
spec = importlib.util.spec_from_file_location("status_pb2", f"{sys.argv[1]}/google/rpc/status_pb2.py")
status_pb2 = importlib.util.module_from_spec(spec)
spec.loader.exec_module(status_pb2)

channel = grpc.insecure_channel(sys.argv[2])


def call(name, request, reply, **options):
    method = channel.unary_unary(
        f"/quorate.v1.KV/{name}",
        request_serializer=type(request).SerializeToString,
        response_deserializer=reply.FromString,
    )
    return method(request, timeout=10, **options)


def detail_of(error):
    """The ErrorDetail in grpc-status-details-bin."""
    trailers = dict(error.trailing_metadata())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    detail = errors_pb2.ErrorDetail()
    assert status.details[0].Unpack(detail), status
    return detail


put = call("Put", kv_pb2.PutRequest(key=b"k{py}", value=b"\x00\xff value"), kv_pb2.PutReply)
assert put.applied and put.revision > 0, put
got = call("Get", kv_pb2.GetRequest(key=b"k{py}"), kv_pb2.GetReply)
assert got.found and got.kv.value == b"\x00\xff value" and got.kv.revision == put.revision, got
absent = call("Get", kv_pb2.GetRequest(key=b"nobody"), kv_pb2.GetReply)
assert not absent.found and not absent.HasField("kv"), absent

counter = call("Increment", kv_pb2.IncrementRequest(key=b"n{py}", delta=-7), kv_pb2.IncrementReply)
assert counter.value == -7, counter

transaction = kv_pb2.TxnRequest()
transaction.compare.add(key=b"k{py}", revision=put.revision)
transaction.then.add().put.CopyFrom(kv_pb2.PutRequest(key=b"j{py}", value=b"1"))
assert call("Txn", transaction, kv_pb2.TxnReply).succeeded
transaction.compare[0].revision += 1000
assert not call("Txn", transaction, kv_pb2.TxnReply).succeeded

try:
    call("Put", kv_pb2.PutRequest(key=b"", value=b"x"), kv_pb2.PutReply)
    raise AssertionError("an empty key was taken")
except grpc.RpcError as error:
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, error
    detail = detail_of(error)
    assert detail.code and detail.outcome == errors_pb2.NOT_APPLIED, detail

pipeline = channel.stream_stream(
    "/quorate.v1.KV/Pipeline",
    request_serializer=kv_pb2.BatchRequest.SerializeToString,
    response_deserializer=kv_pb2.BatchReply.FromString,
)
requests = []
for number in range(20):
    batch = kv_pb2.BatchRequest(id=number)
    for key in range(10):
        batch.operations.add().put.CopyFrom(
            kv_pb2.PutRequest(key=f"p{number}-{key}".encode(), value=b"v")
        )
    requests.append(batch)
answered = {}
for reply in pipeline(iter(requests), timeout=20):
    assert all(result.put.applied for result in reply.results), reply
    answered[reply.id] = len(reply.results)
assert answered == {number: 10 for number in range(20)}, answered

pages = channel.unary_stream(
    "/quorate.v1.KV/Scan",
    request_serializer=kv_pb2.ScanRequest.SerializeToString,
    response_deserializer=kv_pb2.ScanReply.FromString,
)(kv_pb2.ScanRequest(prefix=b"p"), timeout=10)
assert sum(len(page.kvs) for page in pages) == 200
print("all well")
