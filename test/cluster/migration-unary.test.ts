import { expect } from 'chai';
import { Connections } from '../../src/client/connections.js';
import { methods } from '../../src/client/methods.js';
import { callUnary } from '../../src/client/wire.js';
import { bytes, text, withCluster } from './fixture.js';
import { ended, expectWhole, fill, migrate } from './migrating.js';

describe('a client that knows nothing of the map', function () {
  this.timeout(180_000);

  it('calls any node while slots move: no call fails', () =>
    withCluster({ shards: 2 }, async (fixture) => {
      const { client, cluster } = fixture;
      const filled = await fill(client, { count: 200, size: 300 });
      const connections = new Connections();
      const expected = new Map<string, string>();
      const failures: string[] = [];
      let stopped = false;
      const work = Array.from({ length: 9 }, async (_, n) => {
        const endpoint = cluster.endpoints[n % cluster.endpoints.length] ?? '';
        for (let turn = 0; !stopped; turn++) {
          const [counter, value] = [`n-${n}-${turn % 30}`, `v-${n}-${turn % 30}`];
          const options = { endpoint, deadline: Date.now() + 20_000 };
          try {
            const { increment, put, get } = methods;
            await callUnary(connections, increment, { key: bytes(counter), delta: 1 }, options);
            expected.set(counter, String(Number(expected.get(counter) ?? '0') + 1));
            const written = { key: bytes(value), value: bytes(String(turn)) };
            await callUnary(connections, put, written, options);
            expected.set(value, String(turn));
            const { kv } = await callUnary(connections, get, { key: bytes(value) }, options);
            if (text(kv?.value) !== String(turn)) failures.push(`${value} was ${text(kv?.value)}`);
          } catch (error) {
            failures.push(`${String(error)} ${JSON.stringify(error)}`);
          }
        }
      });
      try {
        for (const [source, target] of [
          [1, 2],
          [2, 1],
        ] as const) {
          const id = await migrate(client, { source, target, first: 0, last: 8191 });
          expect(await ended(fixture, id)).to.include({ state: 'done' });
        }
      } finally {
        stopped = true;
        await Promise.all(work);
        connections.close();
      }
      expect(failures).to.deep.equal([]);
      await expectWhole(fixture, filled, expected);
    }));
});
