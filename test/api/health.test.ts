import {
  Client,
  credentials,
  Server,
  ServerCredentials,
  type ClientReadableStream,
} from '@grpc/grpc-js';
import { expect } from 'chai';
import { service } from 'grpc-health-check';
import { Health, type ReplicaState } from '../../src/api/health.js';

interface Reply {
  readonly status: string;
}

function method(name: 'Check' | 'Watch'): NonNullable<(typeof service)[string]> {
  const found = service[name] ?? service[name.toLowerCase()];
  if (found === undefined) throw new Error(`no ${name} in the health service`);
  return found;
}

/** The service behind a real gRPC server, and a client of it. */
class Stage {
  readonly health = new Health();
  private readonly server = new Server();
  private client = new Client('127.0.0.1:1', credentials.createInsecure());

  async open(): Promise<this> {
    this.health.addTo(this.server);
    const port = await new Promise<number>((resolve, reject) => {
      this.server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) => {
        if (error === null) resolve(bound);
        else reject(error);
      });
    });
    this.client.close();
    this.client = new Client(`127.0.0.1:${port}`, credentials.createInsecure());
    return this;
  }

  close(): void {
    this.client.close();
    this.server.forceShutdown();
  }

  /** Its status, or the name of the error. */
  check(name: string): Promise<string> {
    const { path, requestSerialize, responseDeserialize } = method('Check');
    return new Promise((resolve) => {
      this.client.makeUnaryRequest(
        path,
        requestSerialize,
        (bytes: Buffer) => responseDeserialize(bytes) as Reply,
        { service: name },
        (error, reply) => {
          resolve(error === null ? (reply?.status ?? '') : `error ${error.code}`);
        },
      );
    });
  }

  /** Each change of a service, in order. */
  watch(name: string): { next: () => Promise<string>; stop: () => void } {
    const { path, requestSerialize, responseDeserialize } = method('Watch');
    const call: ClientReadableStream<Reply> = this.client.makeServerStreamRequest(
      path,
      requestSerialize,
      (bytes: Buffer) => responseDeserialize(bytes) as Reply,
      { service: name },
    );
    call.on('error', () => {
      // It was cancelled.
    });
    const told = call[Symbol.asyncIterator]() as AsyncIterator<Reply>;
    const next = async (): Promise<string> => {
      const { value } = await told.next();
      return (value as Reply).status;
    };
    return {
      next,
      stop: () => {
        call.cancel();
      },
    };
  }
}

const whole: ReplicaState = { id: 3, isRestoring: false, leaderNode: 1 };
const restoring: ReplicaState = { ...whole, isRestoring: true };

describe('gRPC health', () => {
  let stage: Stage;
  beforeEach(async () => {
    stage = await new Stage().open();
  });
  afterEach(() => {
    stage.close();
  });

  it('a replica that is being restored does not serve, although its shard has a leader', async () => {
    stage.health.update(false, [restoring, { ...whole, id: 4 }]);
    expect(await stage.check('shard/3')).to.equal('NOT_SERVING');
    expect(await stage.check('shard/4')).to.equal('SERVING');
    expect(await stage.check('')).to.equal('NOT_SERVING');
    expect(await stage.check('quorate.v1.KV')).to.equal('NOT_SERVING');
    stage.health.update(true, [whole, { ...whole, id: 4 }]);
    expect(await stage.check('shard/3')).to.equal('SERVING');
    expect(await stage.check('quorate.v1.KV')).to.equal('SERVING');
  });

  it('one without a known leader does not serve, and one that left the node is not known', async () => {
    stage.health.update(true, [
      { ...whole, leaderNode: undefined },
      { ...whole, id: 4 },
    ]);
    expect(await stage.check('shard/3')).to.equal('NOT_SERVING');
    stage.health.update(true, [whole]);
    expect(await stage.check('shard/4')).to.equal('error 5');
    expect(await stage.check('shard/3')).to.equal('SERVING');
  });

  it('a watcher is told of each change once, and of the end', async () => {
    stage.health.update(true, [restoring]);
    const { next, stop } = stage.watch('shard/3');
    expect(await next()).to.equal('NOT_SERVING');
    stage.health.update(true, [restoring]);
    stage.health.update(true, [whole]);
    expect(await next()).to.equal('SERVING');
    stage.health.leave();
    expect(await next()).to.equal('NOT_SERVING');
    stage.health.update(true, []);
    expect(await next()).to.equal('SERVICE_UNKNOWN');
    stop();
  });
});
