/**
 * The vocabulary of the scenario files: one function per command. Docs: `scenarios/README.md`.
 */
import { RaftInvariantError, noReplica, replicaId } from '../../raft/index.js';
import type { ProposeVerdict, RaftOptions } from '../../raft/index.js';
import {
  describeMembership,
  describeMessage,
  describePlace,
  describeReplica,
} from '../../raft/describe.js';
import { defaultOptions, member } from './scenario-group.js';
import type { ScenarioGroup } from './scenario-group.js';
import { driverSteps } from './scenario-member.js';
import type { DriverStep } from './scenario-member.js';
import { fieldsOf, messageOf, payloadOf, placeOf } from './scenario-message-text.js';
import type { Selector } from './scenario-network.js';

type Command = (group: ScenarioGroup, words: readonly string[]) => void;

function numberAt(words: readonly string[], position: number): number {
  const word = words[position];
  if (word === undefined || word === '' || Number.isNaN(Number(word))) {
    throw new Error(`a number is missing as word ${position + 1} of "${words.join(' ')}"`);
  }
  return Number(word);
}

/** `2` or `1,2` or `all`. */
function idsOf(group: ScenarioGroup, word: string | undefined): readonly number[] {
  if (word === undefined || word === 'all') {
    return group.ids.filter((id) => !group.member(id).isDown);
  }
  return word.split(',').map(Number);
}

/** `3` (all to 3), `1->3`, `1->*`, `all` or nothing; then a type; then `first N` or `last N`. */
function selectorOf(words: readonly string[]): Selector {
  const rest = [...words];
  const isType = /^[a-z]/i.test(rest[0] ?? '') && rest[0] !== 'all';
  const ends = isType ? 'all' : (rest.shift() ?? 'all');
  const selector: { -readonly [K in keyof Selector]: Selector[K] } = {};
  if (ends.includes('->')) {
    const [from, to] = ends.split('->');
    if (from !== '*') selector.from = Number(from);
    if (to !== '*') selector.to = Number(to);
  } else if (ends !== 'all') {
    selector.to = Number(ends);
  }
  const type = rest[0];
  if (type !== undefined && type !== 'first' && type !== 'last') {
    selector.type = type;
    rest.shift();
  }
  if (rest[0] === 'first') selector.first = numberAt(rest, 1);
  if (rest[0] === 'last') selector.last = numberAt(rest, 1);
  return selector;
}

function optionsOf(words: readonly string[]): Partial<RaftOptions> {
  const known = new Map<string, unknown>(Object.entries(defaultOptions));
  const options: Record<string, number | boolean> = {};
  for (const [name, text] of fieldsOf(words)) {
    const usual = known.get(name);
    if (usual === undefined) throw new Error(`unknown option "${name}"`);
    options[name] = typeof usual === 'boolean' ? text === 'on' : Number(text);
  }
  return options;
}

function printVerdict(group: ScenarioGroup, id: number, verdict: ProposeVerdict): void {
  switch (verdict.kind) {
    case 'appended':
      group.print(`${id} appended ${describePlace(verdict.index, verdict.term)}`);
      return;
    case 'notLeader':
      group.print(`${id} not leader, leader=${describeReplica(verdict.leader)}`);
      return;
    case 'refused':
      group.print(`${id} refused: ${verdict.reason}`);
      return;
  }
}

/** Verdicts are printed before what follows from them. */
function propose(group: ScenarioGroup, id: number, payload: Uint8Array): void {
  group.member(id).input((node) => printVerdict(group, id, node.propose(payload)));
}

/** `+4` a voter, `~5` a learner, `+4/2` on node 2, `-1` a removal, `basedOn=3` the index. */
function change(group: ScenarioGroup, words: readonly string[]): void {
  const id = numberAt(words, 0);
  const listed = (sign: string): readonly string[] =>
    words
      .slice(1)
      .filter((word) => word.startsWith(sign))
      .map((word) => word.slice(1));
  const membersOf = (sign: string): ReturnType<typeof member>[] =>
    listed(sign).map((word) => {
      const [replica, node] = word.split('/');
      return member(Number(replica), Number(node ?? replica));
    });
  const basedOn = fieldsOf(words).get('basedOn');
  group.member(id).input((node) => {
    const verdict = node.proposeMembership({
      basedOn: basedOn === undefined ? node.status().membership.index : Number(basedOn),
      addVoters: membersOf('+'),
      addLearners: membersOf('~'),
      remove: listed('-').map((word) => replicaId(Number(word))),
    });
    printVerdict(group, id, verdict);
  });
}

function printStatus(group: ScenarioGroup, id: number): void {
  const shown = group.member(id);
  if (shown.isDown) {
    group.print(`${id} is down`);
    return;
  }
  const status = shown.running.status();
  const { index, membership } = status.membership;
  group.print(
    `${id} ${status.role} term=${status.term} vote=${describeReplica(status.vote)}` +
      ` leader=${describeReplica(status.leader)} log=${status.firstIndex}..${status.lastIndex}` +
      ` persisted=${status.persistedIndex} commit=${status.commitIndex}` +
      ` applied=${status.appliedIndex} ${describeMembership(membership)} since ${index}` +
      (status.transferTo === noReplica ? '' : ` transferTo=${status.transferTo}`) +
      (status.restoring ? ' restoring' : '') +
      (status.generation > 0 ? ` generation=${status.generation}` : '') +
      (status.outdatedBy > 0 ? ` outdatedBy=${status.outdatedBy}` : ''),
  );
  for (const { id: peer, state, match, next, learner, recentlyActive } of status.progress) {
    group.print(
      `${id}   ${peer} ${state} match=${match} next=${next}` +
        `${learner ? ' learner' : ''}${recentlyActive ? '' : ' inactive'}`,
    );
  }
}

function printDropped(group: ScenarioGroup, id: number): void {
  const dropped = Object.entries(group.member(id).running.status().dropped);
  const counted = dropped.filter(([, count]) => count > 0).sort();
  const text = counted.map(([reason, count]) => `${reason}=${count}`).join(' ');
  group.print(`${id} dropped ${text === '' ? 'nothing' : text}`);
}

/** Who is talking to whom: what is in flight, and what waits for a disk. */
function printFlights(group: ScenarioGroup, words: readonly string[]): void {
  const { from, to, type } = selectorOf(words);
  for (const message of group.network.messages) {
    if (from !== undefined && message.from !== from) continue;
    if (to !== undefined && message.to !== to) continue;
    if (type !== undefined && message.type !== type) continue;
    group.print(`in flight ${describeMessage(message)}`);
  }
  for (const id of group.ids) {
    for (const message of group.member(id).heldMessages) {
      group.print(`unsynced ${describeMessage(message)}`);
    }
  }
}

function partition(group: ScenarioGroup, words: readonly string[]): void {
  const sides = words.join(' ').split('|');
  group.partition(sides.map((side) => side.trim().split(/\s+/).map(Number)));
}

function crash(group: ScenarioGroup, words: readonly string[]): void {
  const fields = fieldsOf(words.slice(1));
  const applied = fields.get('applied');
  group.member(numberAt(words, 0)).crash({
    written: fields.has('written'),
    applied: applied === undefined ? undefined : Number(applied),
  });
}

/** `read 1`, `read 1 a b c`: all in one turn of the driver. */
function read(group: ScenarioGroup, words: readonly string[]): void {
  const id = numberAt(words, 0);
  const contexts = words.length > 1 ? words.slice(1) : [group.nextReadContext()];
  group.member(id).read(contexts);
}

const commands: Readonly<Record<string, Command>> = {
  options: (group, words) => {
    const only = words[0]?.includes('=') === false ? numberAt(words, 0) : undefined;
    group.setOptions(optionsOf(only === undefined ? words : words.slice(1)), only);
  },
  nodes: (group, words) => {
    const voters = Array.from({ length: numberAt(words, 0) }, (_, position) => position + 1);
    const learners = fieldsOf(words).get('learners');
    group.begin(voters, learners === undefined ? [] : learners.split(',').map(Number));
  },
  create: (group, words) => {
    const generation = fieldsOf(words.slice(1)).get('generation');
    group.create(numberAt(words, 0), Number(generation ?? 0));
  },
  recover: (group, words) => group.recover(numberAt(words, 0), numberAt(words, 1)),
  destroy: (group, words) => group.remove(numberAt(words, 0)),
  campaign: (group, words) => group.member(numberAt(words, 0)).input((node) => node.campaign()),
  rehearse: (group, words) =>
    group.member(numberAt(words, 0)).input((node) => node.rehearseCampaign()),
  elect: (group, words) => {
    const id = numberAt(words, 0);
    quietly(group, () => {
      group.member(id).input((node) => node.campaign());
      group.stabilize(undefined);
    });
    const { role, term } = group.member(id).running.status();
    if (role !== 'leader') throw new Error(`${id} is ${role} of term ${term}, not leader`);
    group.print(`${id} leads term ${term}`);
  },
  propose: (group, words) => {
    const payloads = words.slice(1);
    for (const payload of payloads) propose(group, numberAt(words, 0), payloadOf(payload));
  },
  'propose-bytes': (group, words) =>
    propose(group, numberAt(words, 0), payloadOf('x'.repeat(numberAt(words, 1)))),
  tick: (group, words) =>
    group.tick(idsOf(group, words[0]), words[1] === undefined ? 1 : numberAt(words, 1)),
  elapse: (group, words) => {
    for (const id of idsOf(group, words[0])) {
      group.member(id).input((node) => node.elapse(numberAt(words, 1)));
    }
  },
  deliver: (group, words) => group.deliver(group.network.take(selectorOf(words))),
  drop: (group, words) => group.drop(group.network.take(selectorOf(words))),
  duplicate: (group, words) => group.duplicate(selectorOf(words)),
  delay: (group, words) => {
    for (const { message } of group.network.delay(selectorOf(words))) {
      group.print(`late ${describeMessage(message)}`);
    }
  },
  release: (group) => {
    for (const { message } of group.network.release()) {
      group.print(`in flight ${describeMessage(message)}`);
    }
  },
  flight: printFlights,
  step: (group, words) =>
    group.member(numberAt(words, 0)).receive(messageOf(words.slice(1)), 0, undefined),
  partition,
  cut: (group, words) => {
    const { from, to } = selectorOf(words);
    if (from === undefined || to === undefined) throw new Error('cut needs from->to');
    group.network.cutLink(from, to);
  },
  heal: (group) => group.network.heal(),
  crash,
  restart: (group, words) => {
    const tail = fieldsOf(words.slice(1)).get('tail');
    group.start(numberAt(words, 0), tail === undefined ? Number.MAX_SAFE_INTEGER : Number(tail));
  },
  change,
  read,
  lease: (group, words) => {
    const id = numberAt(words, 0);
    const { running } = group.member(id);
    const term = words[1] === undefined ? running.term : numberAt(words, 1);
    group.print(`${id} lease term=${term} ${running.leaseValid(term) ? 'valid' : 'not valid'}`);
  },
  transfer: (group, words) => {
    const id = numberAt(words, 0);
    const to = words[1] === undefined ? noReplica : replicaId(numberAt(words, 1));
    group.member(id).input((node) => {
      group.print(`${id} ${node.transferLeadership(to) ? 'transfers' : 'cannot transfer'}`);
    });
  },
  compact: (group, words) => group.compact(numberAt(words, 0), numberAt(words, 1)),
  snapshot: (group, words) => {
    const sent = group.member(numberAt(words, 0)).sendSnapshot(replicaId(numberAt(words, 1)));
    group.print(`${words[0]} ${sent ? 'sends a snapshot' : 'has no snapshot to send'}`);
  },
  'fail-restore': (group, words) => {
    if (!group.member(numberAt(words, 0)).install(false)) group.print('nothing to restore');
  },
  wake: (group, words) => {
    for (const id of idsOf(group, words[0])) group.member(id).input((node) => node.wake());
  },
  unreachable: (group, words) =>
    group
      .member(numberAt(words, 0))
      .input((node) => node.unreachable(replicaId(numberAt(words, 1)))),
  'say-persisted': (group, words) =>
    group.member(numberAt(words, 0)).input((node) => node.persisted(placeOf(words[1]))),
  'say-applied': (group, words) =>
    group.member(numberAt(words, 0)).input((node) => node.applied(numberAt(words, 1))),
  stabilize: (group, words) => group.stabilize(words.length === 0 ? undefined : words.map(Number)),
  status: (group, words) => {
    for (const id of words.length === 0 ? group.ids : words.map(Number)) printStatus(group, id);
  },
  dropped: (group, words) => printDropped(group, numberAt(words, 0)),
  log: (group, words) => {
    for (const line of group.member(numberAt(words, 0)).logLines()) {
      group.print(`${words[0]} ${line}`);
    }
  },
};

function isDriverStep(word: string): word is DriverStep {
  return driverSteps.some((step) => step === word);
}

/**
 * `persist 2`, `hold-persist 2`, `release-persist 2`; false for any other command, which
 * `snapshot 1 3` is, too: it sends an image that the core did not ask for.
 */
function runDriverStep(group: ScenarioGroup, name: string, words: readonly string[]): boolean {
  const [, verb, step = ''] = /^(hold-|release-)?(.*)$/.exec(name) ?? [];
  if (!isDriverStep(step) || (step === 'snapshot' && words.length > 1)) return false;
  for (const id of idsOf(group, words[0])) {
    const { held } = group.member(id);
    if (verb === 'hold-') held.add(step);
    else if (verb === 'release-') held.delete(step);
    else if (!group.member(id).do(step)) group.print(`${id} has nothing to ${step}`);
  }
  return true;
}

/** Runs one line; throws for a word that is not in the vocabulary. */
export function runCommand(group: ScenarioGroup, line: string): void {
  const [name = '', ...words] = line.split(/\s+/);
  if (name === 'quiet') {
    quietly(group, () => runCommand(group, words.join(' ')));
    return;
  }
  if (name === 'expect-panic') {
    expectPanic(group, words.join(' '));
    return;
  }
  if (runDriverStep(group, name, words)) return;
  const command = commands[name];
  if (command === undefined) throw new Error(`unknown command "${name}"`);
  command(group, words);
}

/** Keeps what was printed before, and forgets what `act` prints unless it throws. */
function quietly(group: ScenarioGroup, act: () => void): void {
  const before = group.takeLines();
  act();
  group.takeLines();
  for (const line of before) group.print(line);
}

/** A broken invariant or an impossible option; any other error is a mistake in the file. */
function expectPanic(group: ScenarioGroup, line: string): void {
  try {
    runCommand(group, line);
  } catch (error) {
    if (!(error instanceof RaftInvariantError || error instanceof RangeError)) throw error;
    group.print(`panic: ${error.message}`);
    return;
  }
  throw new Error(`no panic from "${line}"`);
}
