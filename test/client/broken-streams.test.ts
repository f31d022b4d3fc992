import { expect } from 'chai';
import fc from 'fast-check';
import { KvError } from '../../src/client/index.js';
import { OutcomeCode, type IncrementReply } from '../../proto/messages.js';
import { refusal, type BatchCall } from './fake-node.js';
import { bytes, errorOf, until, withNodes } from './fake-cluster.js';

describe('a stream that breaks', () => {
  it('R50: after its batch was applied: the session’s record answers the retry, nothing counts twice', () =>
    withNodes({}, async ({ client, node, store }) => {
      await client.put({ key: bytes('a'), value: bytes('1') });
      const from = node.batches.length;
      node.onBatch = (call) => {
        call.apply();
        if (call.number === from) call.breakStream();
        else call.answer();
      };
      const replies = await Promise.all(
        Array.from({ length: 50 }, () => client.increment({ key: bytes('n'), delta: 1 })),
      );
      expect(replies.map(({ value }) => value)).to.deep.equal(replies.map((_, n) => n + 1));
      expect(store.values.get('n')).to.equal('50');
      expect(node.streams).to.equal(2);
      const sessions = node.batches
        .slice(from)
        .map(({ operations = [] }) => operations.map(({ increment }) => increment?.session));
      expect(sessions[1]).to.deep.equal(sessions[0]);
    }));

  it('R50: before its batch was applied: it is applied once, by the retry', () =>
    withNodes({}, async ({ client, node, store }) => {
      await client.put({ key: bytes('a'), value: bytes('1') });
      const from = node.batches.length;
      node.onBatch = (call) => {
        if (call.number === from) call.breakStream();
        else call.answer();
      };
      const { value } = await client.increment({ key: bytes('n'), delta: 1 });
      expect(value).to.equal(1);
      expect(store.values.get('n')).to.equal('1');
    }));

  for (const { how, lose } of [
    { how: 'broken', lose: (call: BatchCall) => call.breakStream() },
    { how: 'ended by the node', lose: (call: BatchCall) => call.endStream() },
  ]) {
    it(`D04, R52: ${how}, leaves the outcome unknown when every later attempt is refused`, () =>
      withNodes({}, async ({ client, node }) => {
        await client.put({ key: bytes('a'), value: bytes('1') });
        const from = node.batches.length;
        node.onBatch = (call) => {
          call.apply();
          if (call.number === from) lose(call);
          else call.reply([{ error: refusal('KV_DISK_FULL') }]);
        };
        const error = await errorOf(client.increment({ key: bytes('n'), delta: 1 }));
        expect([error.code, error.outcome]).to.deep.equal(['KV_DISK_FULL', 'unknown']);
        expect(error.message).to.contain('an earlier attempt may have been applied');
        expect(error.fields.attempts?.map(({ code }) => code)).to.deep.equal([
          'KV_UNKNOWN_OUTCOME',
          'KV_DISK_FULL',
        ]);
      }));
  }

  it('D04: an unknown result is sticky too, and a read never is unknown', () =>
    withNodes({}, async ({ client, node }) => {
      await client.put({ key: bytes('a'), value: bytes('1') });
      const from = node.batches.length;
      node.onBatch = ({ request, number, reply }) => {
        const error =
          number === from
            ? refusal('KV_UNKNOWN_OUTCOME', { outcome: OutcomeCode.UNKNOWN })
            : refusal('KV_DISK_FULL');
        reply((request.operations ?? []).map(() => ({ error })));
      };
      const write = errorOf(client.delete({ key: bytes('n') }));
      const read = errorOf(client.get({ key: bytes('n') }));
      expect((await write).outcome).to.equal('unknown');
      expect((await read).outcome).to.equal('notApplied');
    }));

  it('was never open: nothing was applied, and the error names every endpoint with its cause', () =>
    withNodes({ nodes: 2, timeoutMs: 400 }, async ({ client, nodes }) => {
      await client.put({ key: bytes('a'), value: bytes('1') });
      for (const node of nodes) node.kill();
      await until('no stream', () => nodes.every(({ openStreams }) => openStreams === 0));
      // A node that had a connection may have got it; later ones meet closed ports only.
      const failed = (key: string): Promise<KvError> =>
        errorOf(client.put({ key: bytes(key), value: bytes('2') }));
      let error = await failed('b');
      for (let n = 0; n < nodes.length && error.outcome === 'unknown'; n++)
        error = await failed(`c${n}`);
      expect(error.outcome).to.equal('notApplied');
      const { attempts = [], attemptCount = 0 } = error.fields;
      expect(new Set(attempts.map(({ endpoint }) => endpoint))).to.deep.equal(
        new Set(nodes.map(({ endpoint }) => endpoint)),
      );
      expect(attempts.length).to.be.within(2, 8);
      expect(attemptCount).to.be.at.least(attempts.length);
      for (const { endpoint } of nodes) {
        expect(String(error)).to.match(new RegExp(`${endpoint} KV_UNAVAILABLE: .*ECONNREFUSED`));
      }
      expect(String(error)).to.contain('nothing was applied');
    }));

  it('is opened again when the node is back', () =>
    withNodes({}, async ({ client, node, store }) => {
      await client.increment({ key: bytes('n'), delta: 1 });
      node.kill();
      const later = client.increment({ key: bytes('n'), delta: 1 });
      await node.restart();
      expect((await later).value).to.equal(2);
      expect(store.values.get('n')).to.equal('2');
    }));

  it('closing the client ends every operation, and says what may have been applied', () =>
    withNodes({}, async ({ client, node }) => {
      await client.put({ key: bytes('a'), value: bytes('1') });
      const held: BatchCall[] = [];
      node.onBatch = (call) => held.push(call);
      const sent = errorOf(client.put({ key: bytes('b'), value: bytes('2') }));
      await until('the batch', () => held.length === 1);
      const unsent = errorOf(client.put({ key: bytes('c'), value: bytes('3') }));
      client.close();
      expect([(await sent).code, (await sent).outcome]).to.deep.equal(['KV_CANCELLED', 'unknown']);
      expect((await unsent).outcome).to.equal('notApplied');
      const late = await errorOf(client.put({ key: bytes('d'), value: bytes('4') }));
      expect([late.code, late.outcome]).to.deep.equal(['KV_CANCELLED', 'notApplied']);
    }));

  it('D04, R50: whatever breaks when, acknowledged + unknown bounds the count, refused adds nothing', async () => {
    const fate = fc.constantFrom('answer', 'lose reply', 'lose request', 'refuse', 'unknown');
    await fc.assert(
      fc.asyncProperty(fc.array(fate, { maxLength: 12 }), (fates) =>
        withNodes({ nodes: 2, timeoutMs: 300 }, async ({ client, nodes, store }) => {
          await client.put({ key: bytes('a'), value: bytes('1') });
          const script = [...fates];
          const onBatch = (call: BatchCall): void => {
            const { operations = [] } = call.request;
            const error =
              script[0] === 'refuse'
                ? refusal('KV_UNAVAILABLE')
                : refusal('KV_UNKNOWN_OUTCOME', { outcome: OutcomeCode.UNKNOWN });
            switch (script.shift()) {
              case 'lose reply':
                call.apply();
                call.breakStream();
                break;
              case 'lose request':
                call.breakStream();
                break;
              case 'unknown':
                call.apply();
                call.reply(operations.map(() => ({ error })));
                break;
              case 'refuse':
                call.reply(operations.map(() => ({ error })));
                break;
              default:
                call.answer();
            }
          };
          for (const node of nodes) node.onBatch = onBatch;
          const outcomes: (IncrementReply | KvError)[] = [];
          for (let n = 0; n < 4; n++) {
            outcomes.push(
              await client.increment({ key: bytes('n'), delta: 1 }).catch((error: unknown) => {
                if (error instanceof KvError) return error;
                throw error;
              }),
            );
          }
          const failed = outcomes.filter((each) => each instanceof KvError);
          const unknown = failed.filter(({ outcome }) => outcome === 'unknown').length;
          const acknowledged = outcomes.length - failed.length;
          const counted = Number(store.values.get('n') ?? 0);
          expect(counted).to.be.within(acknowledged, acknowledged + unknown);
        }),
      ),
      { numRuns: 25 },
    );
  }).timeout(20_000);
});
