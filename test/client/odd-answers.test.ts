import { expect } from 'chai';
import { Metadata, type ServiceError } from '@grpc/grpc-js';
import { codecOf } from '../../proto/definitions.js';
import { OutcomeCode, type SessionTokenMessage } from '../../proto/messages.js';
import { watchTopology } from '../../proto/topology-watch.js';
import { SessionToken } from '../../src/client/index.js';
import { errorOfCall } from '../../src/client/wire.js';
import { slotCount } from '../../src/router/slot.js';
import { bytes, errorOf, until, withNodes } from './fake-cluster.js';
import type { FakeNode } from './fake-node.js';

const tokenCodec = codecOf<SessionTokenMessage>('quorate.v1.SessionToken');
const key = bytes('k');
const value = bytes('v');

/** The map says that a node of this address leads everything, and the node itself follows. */
function tellLeader(node: FakeNode, clientAddress: string): void {
  const info = { peerAddress: '', labels: [], weight: 100, state: 'up', stateSinceMs: 0 };
  Object.assign(node, {
    version: 3,
    nodes: [
      { ...info, nodeId: 1, clientAddress },
      { ...info, nodeId: 2, clientAddress: node.endpoint },
    ],
    shards: [{ shardId: 1, replicas: [1, 2], nodes: [1, 2], replication: 2 }],
    slots: [{ first: 0, last: slotCount - 1, shardId: 1, epoch: 1 }],
  });
  node.onWatch = (watcher) => {
    node.tell(watcher, { leaders: [{ shardId: 1, nodeId: 1, term: 5 }] });
  };
}

const odd = ['', 'no address', 'a:1:2', 'http://x', '[::1', '127.0.0.1:99999'];

describe('a leader’s address that is none', () => {
  for (const address of odd)
    for (const batching of [true, false])
      it(`is passed by: '${address}', ${batching ? 'batches' : 'single calls'}`, () =>
        withNodes({ batching }, async ({ client, node, store }) => {
          tellLeader(node, address);
          await client.get({ key });
          await until('the map', () => node.watchers.size === 1);
          for (let n = 0; n < 5; n++) await client.put({ key, value });
          const large = { key, value: Buffer.alloc(2 * 1024 * 1024) };
          await client.put(large);
          for await (const { done } of client.scan({})) expect(done).to.equal(true);
          expect(store.applied).to.have.length(6);
        }));

  it('is named by the error of a call to it', () =>
    withNodes({}, async ({ client }) => {
      for (const address of odd) {
        const error = await errorOf(client.status(address, { timeoutMs: 500 }));
        expect(error.message).to.contain(address === '' ? "''" : address);
      }
    }));

  it('ends a watch of the topology, and nothing else', async () => {
    for (const endpoint of odd) {
      const reasons: string[] = [];
      const stop = watchTopology({
        endpoint,
        request: {},
        after: (ms, fire) => {
          const timer = setTimeout(fire, ms);
          return () => {
            clearTimeout(timer);
          };
        },
        holdsProcess: true,
        onEvent: () => undefined,
        onEnd: (reason) => reasons.push(reason),
      });
      expect(reasons, 'later').to.have.length(0);
      await until('its end', () => reasons.length > 0);
      expect(reasons).to.have.length(1);
      stop();
    }
  });
});

describe('an event of the topology that cannot be taken', () => {
  it('ends its watch, which says why, and not the process', () =>
    withNodes({}, async ({ node }) => {
      node.version = 3;
      const reasons: string[] = [];
      watchTopology({
        endpoint: node.endpoint,
        request: {},
        after: () => () => undefined,
        holdsProcess: true,
        onEvent: () => {
          JSON.parse('no document');
        },
        onEnd: (reason) => reasons.push(reason),
      });
      await until('the end', () => reasons.length > 0);
      expect(reasons).to.have.length(1);
      expect(reasons[0]).to.contain('malformed event: SyntaxError');
      await until('the node hears of it', () => node.watchers.size === 0);
    }));
});

describe('a reply whose token does not go into the session', () => {
  for (const batching of [true, false])
    it(`D04: leaves no applied write as one that was not, ${batching ? 'batches' : 'single calls'}`, () =>
      withNodes({ batching }, async ({ client, node, store }) => {
        const token = new SessionToken();
        const position = { slot: 1, epoch: 1, revision: 1, logTimeMs: 0 };
        token.learn({ token: tokenCodec.encode({ clusterId: 'here', positions: [position] }) });
        const foreign = tokenCodec.encode({ clusterId: 'elsewhere', positions: [position] });
        const writes = [
          () => client.put({ key, value }, { token }),
          () => client.txn({ then: [{ put: { key, value } }] }, { token }),
        ];
        for (const write of writes) {
          node.token = foreign;
          const error = await errorOf(write());
          expect([error.code, error.outcome]).to.deep.equal(['KV_TOKEN_MISMATCH', 'unknown']);
          node.token = Buffer.from('no token');
          expect((await errorOf(write())).outcome).to.equal('unknown');
        }
        const [result] = await client.batch([{ put: { key, value } }], { token });
        expect(result?.error?.outcome).to.equal(OutcomeCode.UNKNOWN);
        expect(store.applied.length).to.be.at.least(3);
        node.token = foreign;
        expect((await errorOf(client.get({ key }, { token }))).outcome).to.equal('notApplied');
      }));
});

describe('an error whose details are no details', () => {
  it('is told by its status', () => {
    const metadata = new Metadata();
    metadata.set('grpc-status-details-bin', Buffer.from([0xff, 0xff, 0xff]));
    const call: ServiceError = Object.assign(new Error('x'), { code: 12, details: 'x', metadata });
    expect(errorOfCall(call, 'a:1').code).to.equal('KV_UNIMPLEMENTED');
  });
});
