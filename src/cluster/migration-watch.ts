/**
 * Migrations that get nowhere, as far as the metadata group sees it: not a slot was handed over, nor did
 * the state change, for a long time. Sources give up by themselves, unless they have no leader, or stand
 * still in something that nobody thought of: so that is said, once each time.
 */
import { settingOf } from '../meta/settings.js';
import type { MigrationRecord, Topology } from '../meta/topology.js';

/** One slot may take longer than `migrationGiveUpMs` as long as bytes flow; so many times that is said. */
const patience = 10;

interface Seen {
  readonly migration: MigrationRecord;
  /** Monotonic. */
  readonly sinceMs: number;
  isTold: boolean;
}

export class MigrationWatch {
  private readonly seen = new Map<number, Seen>();

  /** `nowMs`: monotonic. Sentences about those that have got nowhere for too long, and were not told. */
  look({ migrations, settings }: Topology, nowMs: number): readonly string[] {
    const active = migrations.filter(
      ({ state }) => state === 'running' || state === 'cancelling' || state === 'failing',
    );
    for (const id of this.seen.keys())
      if (!active.some((each) => each.id === id)) this.seen.delete(id);
    const limitMs = patience * settingOf(settings, 'migrationGiveUpMs');
    const told: string[] = [];
    for (const migration of active) {
      const known = this.seen.get(migration.id);
      if (known === undefined || isFurther(known.migration, migration))
        this.seen.set(migration.id, { migration, sinceMs: nowMs, isTold: false });
      else if (!known.isTold && nowMs - known.sinceMs >= limitMs) {
        known.isTold = true;
        told.push(sentenceOf(migration, nowMs - known.sinceMs));
      }
    }
    return told;
  }

  /** Somebody else leads, or this node stood still: nothing counts of what it did not see. */
  beginAnew(): void {
    this.seen.clear();
  }
}

function isFurther(before: MigrationRecord, now: MigrationRecord): boolean {
  return before.moved !== now.moved || before.state !== now.state;
}

function sentenceOf({ id, state, source, target, slots }: MigrationRecord, ms: number): string {
  const first = slots[0]?.first ?? 0;
  return (
    `migration ${id} (from slot ${first} on, shard ${source} to shard ${target}) is ${state} and has ` +
    `got nowhere for ${Math.round(ms / 1000)} s: look at the leaders of both shards`
  );
}
