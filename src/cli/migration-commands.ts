/** `quorate migration ...`: slots that change from one shard to another while clients go on. */
import { Command } from 'commander';
import pc from 'picocolors';
import type { ExportFigures, MigrationInfo, TopologyReply } from '../../proto/messages.js';
import type { QuorateClient } from '../client/index.js';
import { countSlots, joinSpans, partsOf, type SlotSpan } from '../router/slot-spans.js';
import { shardIn, topologyOf } from './cluster-picture.js';
import { carryOut, change } from './metadata-change.js';
import {
  followMigrations,
  isOpen,
  liveFigures,
  movedText,
  progressOf,
  remainingMs,
} from './migration-progress.js';
import {
  parseBytes,
  parseInteger,
  withClient,
  withClientFlags,
  type ClientFlags,
} from './options.js';
import {
  formatAge,
  formatBytes,
  formatCount,
  printJson,
  printTable,
  UsageError,
} from './output.js';
import { briefSlots, parseSlots } from './slot-list.js';

interface StartFlags extends ClientFlags {
  readonly slots: string;
  readonly to: string;
  readonly from?: string;
  readonly wait?: boolean;
}

interface ListFlags extends ClientFlags {
  readonly all?: boolean;
}

interface ReasonFlags extends ClientFlags {
  readonly reason: string;
}

const idMax = 0xffff_ffff;
/** Ended ones that `list` shows without --all. */
const endedShown = 10;

const idOf = (text: string): number => parseInteger('migration', text, 1, Number.MAX_SAFE_INTEGER);
const shardOf = (name: string, text: string): number => parseInteger(name, text, 1, idMax);

export function migrationCommand(): Command {
  const migration = new Command('migration')
    .description('slots that change from one shard to another, while clients go on')
    .addHelpText(
      'after',
      `
Examples:
  quorate migration start --slots 0-99,200 --to 3 --wait     with a progress bar
  quorate migration list                                     what is under way, and what ended last
  quorate migration throttle 5 10MiB                         at most so much per second
  quorate cluster rebalance --dry-run                        what would make all shards equal`,
    );
  addStart(migration);
  addLooks(migration);
  addControls(migration);
  return migration;
}

function addStart(migration: Command): void {
  withClientFlags(migration.command('start').description('move slots to another shard'))
    .requiredOption('--slots <list>', 'slots and ranges of them: 0-99,200')
    .requiredOption('--to <shard>', 'the shard that is to have them')
    .option('--from <shard>', 'refuse unless all of them belong to this shard')
    .option('--wait', 'show the progress until they have moved')
    .addHelpText(
      'after',
      `
One migration for each shard that has some of the slots; they queue, and at most migrationsMax run.
With --wait the exit code is 0 when all have moved, 3 when a migration failed or was cancelled.`,
    )
    .action((flags: StartFlags) => {
      const slots = parseSlots('--slots', flags.slots);
      const target = shardOf('--to', flags.to);
      const from = flags.from === undefined ? undefined : shardOf('--from', flags.from);
      return withClient(flags, (client) => start(client, flags, { slots, target, from }));
    });
}

async function start(
  client: QuorateClient,
  flags: StartFlags,
  {
    slots,
    target,
    from,
  }: {
    readonly slots: readonly SlotSpan[];
    readonly target: number;
    readonly from: number | undefined;
  },
): Promise<void> {
  const topology = await topologyOf(client);
  shardIn({ topology }, target);
  const moves =
    from === undefined ? movesByOwner(topology, slots, target) : [{ slots, source: from, target }];
  if (moves.length === 0) {
    const count = countSlots(slots);
    if (flags.output === 'json') printJson({ changed: false, issued: {} });
    else console.log(`nothing to move: shard ${target} has all ${count} slots already`);
    return;
  }
  const { migrations = [] } = await carryOut(client, flags, { kind: 'startMigrations', moves });
  if (flags.wait === true) await followMigrations(client, flags, migrations);
}

/** One move for each shard that has some of them, but for the target itself. */
function movesByOwner(
  { slots: map, pins }: TopologyReply,
  slots: readonly SlotSpan[],
  target: number,
): readonly { slots: readonly SlotSpan[]; source: number; target: number }[] {
  const pinned = pins.map(({ slot, shardId, epoch }) => ({
    first: slot,
    last: slot,
    shardId,
    epoch,
  }));
  const parts = partsOf([...map, ...pinned], slots);
  if (countSlots(parts) < countSlots(slots))
    throw new UsageError(
      '--slots: keys are hashed to slots 0 to 16383; of those above not all are pins ' +
        'that there are: quorate slot map lists them',
    );
  const sources = [...new Set(parts.map(({ shardId }) => shardId))].sort((a, b) => a - b);
  return sources
    .filter((source) => source !== target)
    .map((source) => ({
      slots: joinSpans(parts.filter(({ shardId }) => shardId === source)),
      source,
      target,
    }));
}

function addLooks(migration: Command): void {
  withClientFlags(
    migration.command('list').description('migrations under way, and those that ended last'),
  )
    .option('--all', `all that are known, not only the last ${endedShown} that ended`)
    .action((flags: ListFlags) =>
      withClient(flags, async (client) => {
        list((await topologyOf(client)).migrations, flags);
      }),
    );
  withClientFlags(migration.command('show <migration>').description('one migration')).action(
    (id: string, flags: ClientFlags) =>
      withClient(flags, async (client) => {
        const found = migrationIn(await topologyOf(client), idOf(id));
        const live = (await liveFigures(client, [found])).get(found.migrationId);
        // Not spread: what is 0 is not among a message's own fields, and would be missing.
        if (flags.output === 'json') printJson({ migration: found, live: live ?? null });
        else show(found, live);
      }),
  );
  withClientFlags(
    migration
      .command('watch [migrations...]')
      .description('the progress of these, or of all that are open, until they have ended'),
  ).action((texts: string[], flags: ClientFlags) => {
    const named = texts.map(idOf);
    return withClient(flags, async (client) => {
      const { migrations } = await topologyOf(client);
      const open = migrations.filter(isOpen).map(({ migrationId }) => migrationId);
      const ids = named.length > 0 ? named : open;
      if (ids.length > 0) await followMigrations(client, flags, ids);
      else if (flags.output === 'table') console.log('no migration is open');
    });
  });
}

function list(migrations: readonly MigrationInfo[], { all = false, output }: ListFlags): void {
  const ended = migrations
    .filter((each) => !isOpen(each))
    .toSorted((a, b) => a.endedMs - b.endedMs);
  const shown = [
    ...migrations.filter(isOpen),
    ...(all ? ended : ended.slice(-endedShown)),
  ].toSorted((a, b) => a.migrationId - b.migrationId);
  if (output === 'json') {
    printJson(shown);
    return;
  }
  if (shown.length === 0) {
    console.log('no migrations');
    return;
  }
  printTable(
    ['id', 'state', 'from', 'to', 'slots', 'moved', 'keys', 'bytes', 'for', 'why'],
    shown.map((each) => [
      String(each.migrationId),
      stateText(each.state),
      String(each.source),
      String(each.target),
      briefSlots(each.slots),
      movedText(progressOf([each])),
      formatCount(each.keys),
      formatBytes(each.bytes),
      formatAge((each.endedMs === 0 ? Date.now() : each.endedMs) - each.sinceMs),
      each.reason,
    ]),
  );
  const hidden = migrations.length - shown.length;
  if (hidden > 0) console.log(`\nand ${hidden} that ended before (--all)`);
}

function show(migration: MigrationInfo, live: ExportFigures | undefined): void {
  const { migrationId, state, source, target, slots, sinceMs, endedMs, reason } = migration;
  const { keys, bytes, freezeMsMax, bytesPerSecond, bytesPerSecondNow } = migration;
  const limit = `${formatBytes(bytesPerSecondNow)} per second`;
  const rows: [string, string][] = [
    ['migration', `${migrationId}, ${stateText(state)}${reason === '' ? '' : `: ${reason}`}`],
    ['slots', `${briefSlots(slots)}, from shard ${source} to shard ${target}`],
    [
      'moved',
      `${movedText(progressOf([migration]))}, with ${formatCount(keys)} keys, ${formatBytes(bytes)}`,
    ],
    ...row(freezeMsMax > 0, 'stood still', `a slot for ${freezeMsMax} ms at most`),
    ...(live === undefined ? [] : liveRows(migration, live)),
    ['limit', bytesPerSecond === 0 ? `${limit}, by the setting` : `${limit}, its own`],
    ['begun', `${formatAge(Date.now() - sinceMs)} ago`],
    ...row(endedMs > 0, 'ended', `${formatAge(Date.now() - endedMs)} ago`),
  ];
  for (const [name, value] of rows) console.log(`${name.padEnd(13)}${value}`);
}

/** As the source's leader knows it, since it leads. */
function liveRows(migration: MigrationInfo, live: ExportFigures): readonly [string, string][] {
  // Field by field: what is 0 is not among an object's own fields.
  const { slotsLeft, keysLeft, bytesLeft } = live;
  const eta = remainingMs(migration, bytesLeft);
  return [
    [
      'left',
      `${formatCount(slotsLeft)} slots, ${formatCount(keysLeft)} keys, ${formatBytes(bytesLeft)}` +
        (eta === undefined ? '' : `, about ${formatAge(eta)} more`),
    ],
    [
      'sent',
      `${formatCount(live.recordsSent)} records, ${formatBytes(live.bytesSent)}; ` +
        `${formatCount(live.lag)} changes behind`,
    ],
    ...row(
      live.freezes > 0,
      'freezes',
      `${live.freezes}, median ${Math.round(live.freezeMsMedian)} ms, ` +
        `p99 ${Math.round(live.freezeMsP99)} ms, longest ${Math.round(live.freezeMsMax)} ms`,
    ),
    ...row(live.trouble !== '', 'waits', live.trouble),
  ];
}

function row(isShown: boolean, name: string, value: string): readonly [string, string][] {
  return isShown ? [[name, value]] : [];
}

function addControls(migration: Command): void {
  for (const [action, description] of [
    ['pause', 'copy nothing more of it until it is resumed; what moved stays moved'],
    ['resume', 'let it go on when its turn comes'],
    ['cancel', 'give it up: what moved stays moved, the rest stays where it is'],
  ] as const)
    withClientFlags(migration.command(`${action} <migration>`).description(description))
      .option('--reason <text>', 'for people who look later', '')
      .action((id: string, flags: ReasonFlags) => {
        const command = { kind: 'setMigration', id: idOf(id), action, reason: flags.reason };
        return withClient(flags, (client) => change(client, flags, command));
      });
  withClientFlags(
    migration
      .command('throttle <migration> <bytesPerSecond>')
      .description('the most it copies: 500000, 10MiB; setting: what migrationBytesPerSecond says'),
  ).action((id: string, text: string, flags: ClientFlags) => {
    const command = {
      kind: 'throttleMigration',
      id: idOf(id),
      bytesPerSecond: text === 'setting' ? 0 : rateOf(text),
    };
    return withClient(flags, (client) => change(client, flags, command));
  });
}

function rateOf(text: string): number {
  const rate = parseBytes('bytesPerSecond', text);
  if (rate > 0) return rate;
  throw new UsageError(
    'a throttle of 0 would never end: to stop the migration, quorate migration pause',
  );
}

/** Throws with the ids that there are. */
function migrationIn({ migrations }: TopologyReply, id: number): MigrationInfo {
  const found = migrations.find(({ migrationId }) => migrationId === id);
  if (found !== undefined) return found;
  throw new Error(
    `there is no migration ${id}: it never was, or ended long ago (quorate migration list --all)`,
  );
}

export function stateText(state: string): string {
  if (state === 'done') return pc.green(state);
  if (state === 'failed' || state === 'failing') return pc.red(state);
  return state === 'running' ? pc.cyan(state) : pc.yellow(state);
}
