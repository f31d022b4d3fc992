/**
 * One stream of the lean listener, passed through to grpc-js both ways: body as there is room on the
 * other side, end, trailers and cancellation.
 */
import { constants, type ClientHttp2Stream, type IncomingHttpHeaders } from 'node:http2';
import { encodeBlock } from './http2/hpack-encoder.js';
import { ErrorCode } from './http2/frames.js';
import type { ServerStream, StreamConsumer } from './http2/server-stream.js';
import type { RequestParts } from './request-parts.js';

/** Of a response that waits; beyond it grpc-js is not asked for more. */
const waitingBytesMax = 64 * 1024;

const unavailable = {
  ':status': '200',
  'content-type': 'application/grpc+proto',
  'grpc-status': '14',
  'grpc-message': 'the node is shutting down',
} as const;

export class StreamRelay implements StreamConsumer {
  private readonly stream: ServerStream;
  private readonly inner: ClientHttp2Stream;
  private readonly parts: RequestParts;
  private readonly onStatus: (status: string | undefined) => void;
  private headSent = false;
  /** The body has been passed on, to its end. */
  private bodyEnded = false;
  private isSettled = false;
  private trailers: IncomingHttpHeaders | undefined;

  /** `onStatus` is called once, with the grpc-status of the response if it had one. */
  constructor(options: {
    readonly stream: ServerStream;
    readonly inner: ClientHttp2Stream;
    readonly parts: RequestParts;
    readonly onStatus: (status: string | undefined) => void;
  }) {
    this.stream = options.stream;
    this.inner = options.inner;
    this.parts = options.parts;
    this.onStatus = options.onStatus;
    this.listen();
  }

  onData(bytes: Buffer): void {
    if (this.inner.destroyed || this.inner.writableEnded) {
      this.stream.consumed(bytes.length);
      return;
    }
    const cost = this.parts.keep(bytes.length);
    this.inner.write(bytes, () => {
      this.parts.giveBack(cost);
      this.stream.consumed(bytes.length);
    });
    // grpc-js does not take them as fast as they come, and they are small.
    if (!this.parts.isOver) return;
    this.stream.reset(ErrorCode.ENHANCE_YOUR_CALM);
    this.onGone(ErrorCode.CANCEL);
  }

  onEnd(): void {
    this.inner.end();
  }

  onGone(code: number): void {
    this.inner.close(code === ErrorCode.NO_ERROR ? constants.NGHTTP2_CANCEL : code);
    this.settle(undefined);
  }

  private listen(): void {
    const { inner, stream } = this;
    inner.on('response', (headers, flags) => {
      this.onResponse(headers, (flags & constants.NGHTTP2_FLAG_END_STREAM) !== 0);
    });
    inner.on('trailers', (trailers) => {
      this.trailers = trailers;
      if (this.bodyEnded) this.finish(trailers);
    });
    inner.on('error', () => {
      // 'close' follows.
    });
    inner.on('close', () => {
      this.onInnerClosed();
    });
    stream.onRoom = () => {
      inner.resume();
    };
  }

  private onResponse(headers: IncomingHttpHeaders, isAll: boolean): void {
    this.headSent = true;
    if (isAll) {
      this.finish(headers);
      return;
    }
    this.stream.sendHead(encodeBlock(fieldsOf(headers)));
    this.inner.on('data', (bytes: Buffer) => {
      this.stream.sendBody(bytes);
      if (this.stream.bodyBytes > waitingBytesMax) this.inner.pause();
    });
    this.inner.on('end', () => {
      this.bodyEnded = true;
      if (this.trailers !== undefined) this.finish(this.trailers);
    });
  }

  /**
   * Without its trailers the response was cut. Before its headers grpc-js has refused the request, which
   * has more fields than it takes, or is gone.
   */
  private onInnerClosed(): void {
    if (this.isSettled) return;
    const { rstCode } = this.inner;
    if (!this.headSent && rstCode !== ErrorCode.ENHANCE_YOUR_CALM) this.finish(unavailable);
    else {
      this.stream.reset(rstCode === 0 ? ErrorCode.INTERNAL_ERROR : rstCode);
      this.settle(undefined);
    }
  }

  private finish(last: IncomingHttpHeaders): void {
    if (this.isSettled) return;
    this.stream.end(encodeBlock(fieldsOf(last)));
    const status = last['grpc-status'];
    this.settle(typeof status === 'string' ? status : undefined);
  }

  private settle(status: string | undefined): void {
    if (this.isSettled) return;
    this.isSettled = true;
    this.onStatus(status);
  }
}

function fieldsOf(headers: IncomingHttpHeaders): [string, string][] {
  return Object.entries(headers).flatMap(([name, value]) =>
    (Array.isArray(value) ? value : [String(value)]).map((one): [string, string] => [name, one]),
  );
}
