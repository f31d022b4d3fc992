/** How far migrations are, for people who wait: a bar on a terminal, lines elsewhere. */
import cliProgress from 'cli-progress';
import type { ExportFigures, MigrationInfo } from '../../proto/messages.js';
import { KvError, type QuorateClient } from '../client/index.js';
import type { ClientFlags } from './options.js';
import { formatAge, formatBytes, formatCount, Unhealthy } from './output.js';

const pollMs = 500;
/** The node that is asked may not have heard of a migration that was begun just now, this long, ms. */
const unheardMs = 10_000;

/** What an empty slot costs, in bytes that could be copied instead. */
const emptySlotBytes = 4096;
/** Figures that come later are not waited for, ms. */
const liveMsMax = 1000;

const endings: readonly string[] = ['done', 'cancelled', 'failed'];

export function isOpen({ state }: MigrationInfo): boolean {
  return !endings.includes(state);
}

export interface MigrationProgress {
  /** Slots, and those that were handed over. */
  readonly slots: number;
  readonly moved: number;
  /** What went with them. */
  readonly keys: number;
  readonly bytes: number;
}

/** Of one or several as a whole. Everything that is shown of how far they are comes from here. */
export function progressOf(migrations: readonly MigrationInfo[]): MigrationProgress {
  const sum = (of: (migration: MigrationInfo) => number): number =>
    migrations.reduce((total, each) => total + of(each), 0);
  return {
    slots: sum(({ slotCount }) => slotCount),
    moved: sum(({ moved }) => moved),
    keys: sum(({ keys }) => keys),
    bytes: sum(({ bytes }) => bytes),
  };
}

/**
 * Of those that are open, as far as the leaders of their sources answer: what is under way besides what
 * has been handed over.
 */
export async function liveFigures(
  client: QuorateClient,
  migrations: readonly MigrationInfo[],
): Promise<ReadonlyMap<number, ExportFigures>> {
  const sources = new Set(migrations.filter(isOpen).map(({ source }) => source));
  const replies = await Promise.all(
    Array.from(sources, async (shardId) => {
      try {
        return (await client.shardFigures({ shardId }, { timeoutMs: liveMsMax })).exports;
      } catch (error) {
        // Without a leader just now: what is known without it is shown.
        if (error instanceof KvError) return [];
        throw error;
      }
    }),
  );
  return new Map(replies.flat().map((figures) => [figures.migrationId, figures]));
}

/** By what has moved so far; undefined: too little to tell. */
export function remainingMs(
  { moved, slotCount, bytes, sinceMs }: MigrationInfo,
  bytesLeft: number,
): number | undefined {
  if (moved === 0) return undefined;
  const done = bytes + moved * emptySlotBytes;
  const left = bytesLeft + (slotCount - moved) * emptySlotBytes;
  return ((Date.now() - sinceMs) * left) / done;
}

/** '12 of 100 (12 %)'. */
export function movedText({ slots, moved }: MigrationProgress): string {
  // 100 % is said of nothing that is not whole.
  const percent = slots === 0 ? 100 : Math.floor((100 * moved) / slots);
  return `${formatCount(moved)} of ${formatCount(slots)} (${percent} %)`;
}

/**
 * Shows the progress until all of them have ended. Rejects with Unhealthy (exit code 3) when one was
 * cancelled or failed.
 */
export async function followMigrations(
  client: QuorateClient,
  flags: ClientFlags,
  ids: readonly number[],
): Promise<void> {
  const screen = flags.output === 'table' && process.stderr.isTTY ? new Bar() : new Lines(flags);
  const deadline = performance.now() + unheardMs;
  const known = new Set<number>();
  for (;;) {
    const { migrations } = await client.topology();
    const found = migrations.filter(({ migrationId }) => ids.includes(migrationId));
    const missing = ids.filter((id) => !found.some(({ migrationId }) => migrationId === id));
    const gone = missing.find((id) => known.has(id) || performance.now() > deadline);
    if (gone !== undefined) {
      screen.stop();
      throw new Unhealthy(`migration ${gone} is not known: it ended long ago, or never was`);
    }
    for (const { migrationId } of found) known.add(migrationId);
    if (found.length > 0) screen.show(found, await liveFigures(client, found));
    if (missing.length === 0 && !found.some(isOpen)) {
      screen.stop();
      throwUnlessDone(found);
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, pollMs));
  }
}

function throwUnlessDone(migrations: readonly MigrationInfo[]): void {
  const bad = migrations.filter(({ state }) => state !== 'done');
  if (bad.length === 0) return;
  const said = bad.map(({ migrationId, state, reason, moved, slotCount }) => {
    const why = reason === '' ? '' : `: ${reason}`;
    return `migration ${migrationId} ${state}${why} (${moved} of ${slotCount} slots moved)`;
  });
  throw new Unhealthy(said.join('; '));
}

class Bar {
  private readonly bar = new cliProgress.SingleBar(
    {
      format: '{bar} {percentage}% | {value}/{total} slots | {rest} | {duration_formatted}',
      hideCursor: true,
      stream: process.stderr,
    },
    cliProgress.Presets.shades_classic,
  );
  private isShown = false;

  show(migrations: readonly MigrationInfo[], live: ReadonlyMap<number, ExportFigures>): void {
    const progress = progressOf(migrations);
    if (!this.isShown) this.bar.start(progress.slots, 0, { rest: '' });
    this.isShown = true;
    this.bar.setTotal(progress.slots);
    this.bar.update(progress.moved, { rest: restText(migrations, progress, live) });
  }

  stop(): void {
    if (this.isShown) this.bar.stop();
  }
}

/** One for each change: for logs and programs. */
class Lines {
  private readonly isJson: boolean;
  private last = '';

  constructor({ output }: ClientFlags) {
    this.isJson = output === 'json';
  }

  show(migrations: readonly MigrationInfo[], live: ReadonlyMap<number, ExportFigures>): void {
    const progress = progressOf(migrations);
    const line = this.isJson
      ? JSON.stringify({ ...progress, migrations: migrations.map(stateOf) })
      : `${movedText(progress)} slots moved, ${restText(migrations, progress, live)}`;
    if (line !== this.last) console.log(line);
    this.last = line;
  }

  stop(): void {
    this.last = '';
  }
}

function stateOf({ migrationId, state, moved, slotCount, reason }: MigrationInfo): object {
  return { migrationId, state, moved, slotCount, reason };
}

function restText(
  migrations: readonly MigrationInfo[],
  progress: MigrationProgress,
  live: ReadonlyMap<number, ExportFigures>,
): string {
  const states = [...new Set(migrations.map(({ state }) => state))].map((state) => {
    const count = migrations.filter((each) => each.state === state).length;
    return migrations.length === 1 ? state : `${count} ${state}`;
  });
  const { keys, bytes } = progress;
  const remaining = migrations
    .map((each) => remainingMs(each, live.get(each.migrationId)?.bytesLeft ?? 0) ?? 0)
    .filter((ms) => ms > 0);
  const eta = remaining.length === 0 ? '' : `, about ${formatAge(Math.max(...remaining))} more`;
  const trouble = [...live.values()].find((each) => each.trouble !== '')?.trouble;
  return (
    `${formatCount(keys)} keys, ${formatBytes(bytes)}, ${states.join(', ')}${eta}` +
    (trouble === undefined ? '' : `, waits: ${trouble}`)
  );
}
