/** How far migrations are, for people who wait: a bar on a terminal, lines elsewhere. */
import cliProgress from 'cli-progress';
import type { MigrationInfo } from '../../proto/messages.js';
import type { QuorateClient } from '../client/index.js';
import type { ClientFlags } from './options.js';
import { formatBytes, formatCount, Unhealthy } from './output.js';

const pollMs = 500;
/** The node that is asked may not have heard of a migration that was begun just now, this long, ms. */
const unheardMs = 10_000;

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
    if (found.length > 0) screen.show(found);
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

  show(migrations: readonly MigrationInfo[]): void {
    const progress = progressOf(migrations);
    if (!this.isShown) this.bar.start(progress.slots, 0, { rest: '' });
    this.isShown = true;
    this.bar.setTotal(progress.slots);
    this.bar.update(progress.moved, { rest: restText(migrations, progress) });
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

  show(migrations: readonly MigrationInfo[]): void {
    const progress = progressOf(migrations);
    const line = this.isJson
      ? JSON.stringify({ ...progress, migrations: migrations.map(stateOf) })
      : `${movedText(progress)} slots moved, ${restText(migrations, progress)}`;
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

function restText(migrations: readonly MigrationInfo[], progress: MigrationProgress): string {
  const states = [...new Set(migrations.map(({ state }) => state))].map((state) => {
    const count = migrations.filter((each) => each.state === state).length;
    return migrations.length === 1 ? state : `${count} ${state}`;
  });
  const { keys, bytes } = progress;
  return `${formatCount(keys)} keys, ${formatBytes(bytes)}, ${states.join(', ')}`;
}
