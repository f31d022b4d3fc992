import { expect } from 'chai';
import { bareTerms } from '../../src/shard/migration-step.js';
import { SlotOwnership } from '../../src/shard/slot-state.js';
import { anySlot } from '../../src/router/slot.js';
import { bytes } from '../shard/command-texts.js';
import { sayOfPin } from '../shard/pinning.js';
import { reportOf, targetShard } from '../shard/two-shards.js';
import { DrivenMigration } from './driven-migration.js';

async function driven(
  { keys, size }: { readonly keys: number; readonly size: number },
  run: (migration: DrivenMigration) => Promise<void>,
): Promise<void> {
  const migration = new DrivenMigration();
  await migration.write(keys, size);
  try {
    await run(migration);
  } finally {
    await migration.close();
  }
}

const kindsOf = ({ told }: DrivenMigration): readonly string[] => told.map(({ kind }) => kind);

describe('the driver of a migration', () => {
  it('keeps to its rate however often it is looked at, and to another one at once', () =>
    driven({ keys: 80, size: 10_000 }, async (migration) => {
      migration.change({ bytesPerSecond: 40_000 });
      migration.begin();
      await migration.pass(15_000);
      expect(migration.driver.figures.bytes).to.be.within(500_000, 900_000);
      expect(migration.ended).to.equal(false);
      migration.change({ bytesPerSecond: 100_000_000 });
      expect(await migration.until(() => migration.ended)).to.be.below(1000);
      expect(kindsOf(migration)).to.deep.equal(['moveSlots']);
      expect(migration.atTarget).to.equal(SlotOwnership.owned);
    }));

  it('R73: waits while keys of the slot are between it and a pin, a moment between attempts, and fails at last', () =>
    driven({ keys: 1, size: 1 }, async (migration) => {
      const { source } = migration.two;
      const between = { slot: anySlot(16_384), key: bytes('{a}0'), isPrefix: false };
      const { slot, ...named } = between;
      await sayOfPin(source, { kind: 'pin', pin: slot, id: 7, ...named });
      migration.begin();
      await migration.pass(1000);
      expect(source.index, 'entries in its log').to.be.below(30);
      expect(migration.driver.figures.trouble).to.match(/into a pin or back/);
      await migration.pass(15_000);
      expect(kindsOf(migration)).to.include('failMigration');
    }));

  it('does not wait for its rate when it is to be ended', () =>
    driven({ keys: 80, size: 10_000 }, async (migration) => {
      migration.change({ bytesPerSecond: 1024 });
      migration.begin();
      await migration.pass(1000);
      migration.change({ goal: 'drop' });
      expect(await migration.until(() => migration.ended)).to.be.below(1000);
      expect(kindsOf(migration)).to.deep.equal(['endMigration']);
      expect(migration.atSource).to.equal(SlotOwnership.owned);
      expect(migration.atTarget).to.equal(SlotOwnership.absent);
    }));

  it('R72: a new leader that has not applied the handover yet says where the slot is before it ends the migration', () =>
    driven({ keys: 3, size: 10 }, async (migration) => {
      const { two, slot } = migration;
      await two.begin();
      await two.copyAll();
      await two.freeze(2000);
      await two.seal();
      const slots = [reportOf(slot, two.stateAt(two.target))];
      migration.unapplied.push({ kind: 'handover', id: two.id, peer: targetShard, slots });
      migration.change({ goal: 'drop' });
      migration.begin();
      await migration.until(() => migration.ended);
      expect(kindsOf(migration)).to.deep.equal(['moveSlots']);
      expect(migration.atSource).to.equal(SlotOwnership.absent);
      expect(migration.atTarget).to.equal(SlotOwnership.owned);
    }));

  it('R77: a new leader that is behind does not call the slot that it gave away lost', () =>
    driven({ keys: 3, size: 10 }, async (migration) => {
      const { two, slot } = migration;
      await two.begin();
      await two.copyAll();
      const [ready] = [two.stateAt(two.source)];
      migration.unapplied.push(
        { kind: 'freeze', id: two.id, peer: targetShard, slots: bareTerms([slot]) },
        {
          kind: 'handover',
          id: two.id,
          peer: targetShard,
          slots: [{ ...reportOf(slot, ready), logTimeMs: 1000 }],
        },
      );
      // The old leader has come so far that the target serves.
      const terms = { ...reportOf(slot, ready), logTimeMs: 1000 };
      await two.tell(two.target, 'seal', [terms]);
      await two.tell(two.target, 'activate', [{ ...terms, epoch: 2 }]);
      expect(migration.atTarget).to.equal(SlotOwnership.owned);
      migration.begin();
      await migration.until(() => migration.ended);
      expect(kindsOf(migration)).to.deep.equal(['moveSlots']);
      expect(migration.atSource).to.equal(SlotOwnership.absent);
    }));

  it('R79: outlasts any time without the metadata group, and fails only when the target stays away', () =>
    driven({ keys: 3, size: 10 }, async (migration) => {
      migration.metadataIsAway = true;
      migration.begin();
      await migration.pass(60_000);
      migration.metadataIsAway = false;
      await migration.until(() => migration.ended);
      expect(kindsOf(migration)).to.deep.equal(['moveSlots']);
    }));

  it('fails when the target stays away for too long, while the slot is served, and drops what it has there', () =>
    driven({ keys: 80, size: 10_000 }, async (migration) => {
      migration.change({ bytesPerSecond: 100_000 });
      migration.begin();
      await migration.pass(1000);
      migration.isTargetAway = () => true;
      await migration.until(() => migration.told.length > 0);
      expect(kindsOf(migration)).to.deep.equal(['failMigration']);
      expect(migration.told[0])
        .to.have.property('reason')
        .that.matches(/the target is away/);
      await migration.pass(5000);
      expect(migration.atSource).to.equal(SlotOwnership.owned);
      expect(migration.atTarget).to.equal(SlotOwnership.importing);
      migration.isTargetAway = () => false;
      await migration.until(() => migration.ended);
      expect(kindsOf(migration)).to.deep.equal(['failMigration', 'endMigration']);
      expect(migration.atTarget).to.equal(SlotOwnership.absent);
    }));

  it('hands over under writes also when its rate makes it wait for seconds after each piece', () =>
    driven({ keys: 40, size: 10_000 }, async (migration) => {
      migration.change({ bytesPerSecond: 20_000 });
      migration.afterTarget = async () => {
        if (migration.atSource === SlotOwnership.exporting) await migration.write(3, 9000);
      };
      migration.begin();
      await migration.until(() => migration.ended, 120_000);
      expect(kindsOf(migration)).to.deep.equal(['moveSlots']);
    }));

  it('D32: a target that was away for longer than slots may be frozen is given time to answer after the handover', () =>
    driven({ keys: 3, size: 10 }, async (migration) => {
      migration.change({ freezeMsMax: 500 });
      migration.targetMs = 50;
      migration.isTargetAway = () => migration.atSource === SlotOwnership.handedOver;
      migration.begin();
      await migration.until(migration.isTargetAway);
      await migration.pass(5000);
      expect(migration.atTarget).to.equal(SlotOwnership.ready);
      migration.isTargetAway = () => false;
      expect(await migration.until(() => migration.ended)).to.be.below(1000);
      expect(kindsOf(migration)).to.deep.equal(['moveSlots']);
      expect(migration.atTarget).to.equal(SlotOwnership.owned);
    }));

  it('R70: paused, it keeps every change, and fails when there are too many, while the source serves', () =>
    driven({ keys: 80, size: 10_000 }, async (migration) => {
      migration.change({ bytesPerSecond: 100_000 });
      migration.begin();
      await migration.pass(1000);
      migration.change({ goal: 'pause' });
      await migration.write(100, 20);
      await migration.pass(60_000);
      expect(kindsOf(migration)).to.deep.equal([]);
      expect(migration.atSource).to.equal(SlotOwnership.exporting);
      migration.change({ canFail: false });
      await migration.write(1, 20);
      await migration.pass(1000);
      expect(kindsOf(migration), 'ending already').to.deep.equal([]);
      migration.change({ canFail: true });
      await migration.until(() => migration.ended);
      expect(kindsOf(migration)).to.deep.equal(['failMigration', 'endMigration']);
      expect(migration.told[0])
        .to.have.property('reason')
        .that.matches(/^paused while 101 changes were made/);
      expect([migration.atSource, migration.atTarget]).to.deep.equal([
        SlotOwnership.owned,
        SlotOwnership.absent,
      ]);
      expect((await migration.two.source.get('{a}99'))?.value.byteLength).to.equal(20);
    }));

  it('R70: resumed after a pause, it brings over what was written meanwhile', () =>
    driven({ keys: 80, size: 10_000 }, async (migration) => {
      migration.change({ bytesPerSecond: 100_000 });
      migration.begin();
      await migration.pass(1000);
      migration.change({ goal: 'pause' });
      await migration.write(100, 20);
      await migration.pass(60_000);
      migration.change({ goal: 'go', bytesPerSecond: 1_000_000_000 });
      await migration.until(() => migration.ended);
      expect(kindsOf(migration)).to.deep.equal(['moveSlots']);
      expect((await migration.two.target.get('{a}99'))?.value.byteLength).to.equal(20);
    }));

  it('gives up when the changes do not become fewer, and does not stop the writers again and again', () =>
    driven({ keys: 2, size: 10 }, async (migration) => {
      migration.change({ freezeMsMax: 100, giveUpMs: 5000 });
      let freezes = 0;
      migration.afterTarget = () => {
        // Each answer takes longer than slots may be frozen.
        migration.clock.stall(150);
        if (migration.atSource === SlotOwnership.frozen) freezes++;
        return Promise.resolve();
      };
      migration.begin();
      await migration.until(() => migration.ended);
      expect(kindsOf(migration)).to.deep.equal(['failMigration', 'endMigration']);
      expect(migration.atSource).to.equal(SlotOwnership.owned);
      expect(freezes).to.be.below(30);
    }));
});
