import { expect } from 'chai';
import { KeyKind } from '../../storage/index.js';
import { stepHere } from '../../src/api/migration-steps.js';
import { ByteWriter } from '../../src/bytes.js';
import { KvError } from '../../src/errors.js';
import type { Slot } from '../../src/router/slot.js';
import {
  bareTerms,
  encodeStep,
  type MigrationStep,
  type MovedRecord,
} from '../../src/shard/migration-step.js';
import { absentSlotState } from '../../src/shard/slot-state.js';
import { encodeValue } from '../../src/shard/value-codec.js';

const slot = 7 as Slot;
const key = Buffer.from('k');
const stored = encodeValue({ revision: 3, ordinal: 0, expiresAtMs: 0, bytes: key });

/** What the target's leader answers to a step, and what reached its log. */
async function sent(
  step: MigrationStep | Uint8Array,
  isDiskFull = false,
): Promise<{ readonly problem: unknown; readonly logged: readonly string[] }> {
  const logged: string[] = [];
  const shard = {
    step: (each: MigrationStep) => {
      logged.push(each.kind);
      return Promise.resolve({ logTimeMs: 0, results: [] });
    },
    slotState: () => absentSlotState,
  };
  const writer = new ByteWriter();
  if (!(step instanceof Uint8Array)) encodeStep(writer, step);
  const steps = [step instanceof Uint8Array ? step : writer.take()];
  try {
    await stepHere(shard, { shardId: 2, steps, slots: [slot] }, isDiskFull);
    return { problem: undefined, logged };
  } catch (problem) {
    return { problem, logged };
  }
}

function chunk(record: MovedRecord): MigrationStep {
  const progress = { kind: 'changes', after: 0, through: 3 } as const;
  return { kind: 'chunk', id: 1, peer: 1, parts: [{ slot, progress, records: [record] }] };
}

describe('a step of a migration at its target', () => {
  it('reaches the log when it is one of a target', async () => {
    const good = chunk({ kind: KeyKind.value, key, change: 3, stored });
    expect(await sent(good)).to.deep.equal({ problem: undefined, logged: ['chunk'] });
    const begin = { kind: 'importBegin', id: 1, peer: 1, slots: bareTerms([slot]) } as const;
    expect((await sent(begin)).logged).to.deep.equal(['importBegin']);
  });

  it('D16: is refused when its records cannot be read: in the log they would stop every replica', async () => {
    for (const bad of [Buffer.from([9, 9, 9]), Buffer.alloc(0), stored.subarray(0, 10)]) {
      const { problem, logged } = await sent(
        chunk({ kind: KeyKind.value, key, change: 3, stored: bad }),
      );
      expect(problem).to.be.instanceOf(KvError).and.to.include({ code: 'KV_INVALID' });
      expect(logged).to.deep.equal([]);
    }
    const other = await sent(chunk({ kind: KeyKind.value, key, change: 4, stored }));
    expect(String(other.problem)).to.contain('a record is of change 3, not 4');
    const session = await sent(chunk({ kind: KeyKind.session, key, change: 3, stored }));
    expect(session.problem).to.include({ code: 'KV_INVALID' });
  });

  it('is refused when it is the source’s own, names no slot, or is no step at all', async () => {
    const handover = { kind: 'handover', id: 1, peer: 1, slots: bareTerms([slot]) } as const;
    expect(String((await sent(handover)).problem)).to.contain("the source's own");
    const far = { kind: 'seal', id: 1, peer: 1, slots: bareTerms([65_534 as Slot]) } as const;
    expect(String((await sent(far)).problem)).to.contain('slots are 0 to 65533');
    expect((await sent(Buffer.from([77]))).problem).to.include({ code: 'KV_INVALID' });
  });

  it('is refused when it brings data and the disk is nearly full', async () => {
    const good = chunk({ kind: KeyKind.value, key, change: 3, stored });
    expect((await sent(good, true)).problem).to.include({ code: 'KV_DISK_FULL' });
    const seal = { kind: 'seal', id: 1, peer: 1, slots: bareTerms([slot]) } as const;
    expect((await sent(seal, true)).logged).to.deep.equal(['seal']);
  });
});
