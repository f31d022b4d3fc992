/**
 * `quorate recover ...`: groups that lost their majority for good. Works on the data directories of
 * nodes that do not run; loads server code, and only then.
 */
import { randomInt } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { Command } from 'commander';
import { z } from 'zod';
import { Identity } from '../config/identity.js';
import type { PlannedRecovery, ReplicaListing } from '../group/recovery-plan.js';
import type { StoppedNode } from '../group/stopped-node.js';
import { Unhealthy, UsageError, printJson, printTable, type OutputForm } from './output.js';
import { parseForm } from './options.js';

const formatVersion = 1;

const count = z.number().int().nonnegative();
const listingSchema = z.strictObject({
  version: z.literal(formatVersion),
  clusterId: z.string(),
  nodeId: count,
  replicas: z.array(
    z.strictObject({
      group: count,
      replica: count,
      node: count,
      generation: count,
      term: count,
      lastIndex: count,
      lastTerm: count,
      commitIndex: count,
      appliedIndex: count,
      majorities: z.array(z.array(count)),
      members: z.array(z.strictObject({ replica: count, node: count })),
      usable: z.boolean(),
      reason: z.string(),
    }),
  ),
});
const planSchema = z.strictObject({
  version: z.literal(formatVersion),
  clusterId: z.string(),
  recoveries: z.array(
    z.strictObject({
      group: count,
      replica: count,
      node: count,
      generation: count,
      lastIndex: count,
      lastTerm: count,
      lost: z.array(count),
    }),
  ),
});

const risk = [
  'This gives up what only the lost nodes had: writes that were acknowledged may be gone, and writes',
  'that failed may appear. What was read before may be read no more: no promise of linearizability',
  'reaches across the recovery. Never let the lost nodes run where the recovered ones cannot be',
  'reached: a majority of them would serve the old state until it hears of the new one.',
].join('\n');

export function recoverCommand(): Command {
  const recover = new Command('recover').description(
    'groups that lost their majority for good: go on with one survivor (node stopped)',
  );
  withDirectory(recover.command('list'))
    .description('the replicas of a stopped node; as JSON it is what plan reads')
    .option('-o, --output <form>', 'table or json', parseForm, 'table')
    .action(list);
  recover
    .command('plan <listings...>')
    .description('choose the survivor of each group, from the listings of all surviving nodes')
    .option('--force', 'also for groups that have a majority: it is overruled')
    .option('--give-up-unusable', 'also where a replica that is not usable has a newer log')
    .action(plan);
  withDirectory(recover.command('apply'))
    .description('carry out the part of a plan that is about this node')
    .requiredOption('--plan <file>', 'what `recover plan` printed')
    .option('--dry-run', 'say what would be done, and change nothing')
    .option('--yes', 'the loss is understood')
    .action(apply);
  return recover;
}

function withDirectory(command: Command): Command {
  return command.requiredOption('--data-directory <directory>', 'of a node that does not run');
}

async function withStopped<T>(
  directory: string,
  run: (node: StoppedNode, identity: ReturnType<typeof Identity.read>) => Promise<T>,
): Promise<T> {
  const identity = Identity.read(directory);
  const { StoppedNode: Stopped } = await import('../group/stopped-node.js');
  const node = await Stopped.open(directory, identity.nodeId);
  try {
    return await run(node, identity);
  } finally {
    await node.close();
  }
}

async function list(flags: {
  readonly dataDirectory: string;
  readonly output: OutputForm;
}): Promise<void> {
  await withStopped(flags.dataDirectory, async (node, { clusterId, nodeId }) => {
    const replicas = await node.list();
    if (flags.output === 'json') {
      printJson({ version: formatVersion, clusterId, nodeId, replicas });
      return;
    }
    printTable(
      ['group', 'replica', 'gen', 'term', 'last', 'commit', 'applied', 'members', ''],
      replicas.map((each) => [
        nameOf(each.group),
        String(each.replica),
        String(each.generation),
        String(each.term),
        `${each.lastIndex} (term ${each.lastTerm})`,
        String(each.commitIndex),
        String(each.appliedIndex),
        each.members.map((member) => `${member.replica}@${member.node}`).join(' '),
        each.usable ? '' : `not usable: ${each.reason}`,
      ]),
    );
  });
}

async function plan(
  files: readonly string[],
  flags: { readonly force?: boolean; readonly giveUpUnusable?: boolean },
): Promise<void> {
  const listings = files.map((file) => read(file, listingSchema));
  const [clusterId, ...others] = new Set(listings.map((each) => each.clusterId));
  if (clusterId === undefined || others.length > 0)
    throw new UsageError(`the listings are of several clusters: ${[clusterId, ...others].join()}`);
  if (new Set(listings.map(({ nodeId }) => nodeId)).size < listings.length)
    throw new UsageError('two listings are of the same node');
  const { freshGeneration, planRecovery, randomBound } = await import('../group/recovery-plan.js');
  const { force = false, giveUpUnusable = false } = flags;
  const generation = freshGeneration(Date.now(), randomInt(randomBound));
  const { recoveries, alive, hopeless, passedOver } = planRecovery(
    listings.flatMap(({ replicas }) => replicas),
    { force, giveUpUnusable, generation },
  );
  printJson({ version: formatVersion, clusterId, recoveries });
  for (const each of recoveries) console.error(sentenceOf(each));
  if (alive.length > 0)
    console.error(`${alive.map(nameOf).join(', ')}: a majority is left, nothing to recover`);
  for (const each of passedOver) console.error(warningOf(each));
  if (hopeless.length > 0)
    throw new Unhealthy(`${hopeless.map(nameOf).join(', ')}: no listed replica is usable`);
  if (passedOver.length > 0 && !giveUpUnusable)
    throw new Unhealthy(
      'not in the plan: groups with a newer log that is not usable. Mend it if you can (an older ' +
        'copy of its directory, say); else plan again with --give-up-unusable',
    );
}

async function apply(flags: {
  readonly dataDirectory: string;
  readonly plan: string;
  readonly dryRun?: boolean;
  readonly yes?: boolean;
}): Promise<void> {
  const { dryRun = false, yes = false } = flags;
  const { clusterId, recoveries } = read(flags.plan, planSchema);
  console.error(risk);
  if (!yes && !dryRun) throw new UsageError('nothing was changed: repeat with --yes, or --dry-run');
  await withStopped(flags.dataDirectory, async (node, identity) => {
    if (identity.clusterId !== clusterId)
      throw new UsageError(
        `this is cluster '${identity.clusterId}', the plan is for '${clusterId}'`,
      );
    const own = recoveries.filter((each) => each.node === identity.nodeId);
    // All of them are looked at before the first is changed.
    for (const each of own) await node.recover(each, true);
    for (const each of own) {
      const verdict = await node.recover(each, dryRun);
      console.log(`${dryRun ? 'would be: ' : ''}${verdict}: ${sentenceOf(each)}`);
    }
    if (own.length === 0) console.log('nothing in this plan is about this node: start it as it is');
  });
}

function sentenceOf({
  group,
  replica,
  node,
  generation,
  lastIndex,
  lost,
}: PlannedRecovery): string {
  const without = lost.length === 0 ? '' : `, without node ${lost.join(', ')}`;
  return (
    `${nameOf(group)} goes on with replica ${replica} of node ${node} up to ${lastIndex}, ` +
    `in generation ${generation}${without}`
  );
}

function warningOf({ group, replica, node, lastIndex, lastTerm, reason }: ReplicaListing): string {
  return (
    `WARNING: ${nameOf(group)}: replica ${replica} of node ${node} has the newest log (up to ` +
    `${lastIndex} of term ${lastTerm}), and is not usable: ${reason}. What only it has would be gone`
  );
}

function nameOf(group: number): string {
  return group === 0 ? 'metadata' : `shard ${group}`;
}

function read<T>(file: string, schema: z.ZodType<T>): T {
  try {
    return schema.parse(JSON.parse(readFileSync(file, 'utf8')));
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new UsageError(`${file} cannot be read as what it should be: ${reason}`);
  }
}
