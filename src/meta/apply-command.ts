/**
 * The rules of the metadata group as one pure function: the topology before and a command make the
 * topology after and a result. No clock, no configuration: time comes with the command.
 *
 * A command is applied as a whole or not at all. Each one that changes something raises the version
 * by one; a repetition of what is so already, and a refusal, leave the very same value.
 */
import { applyInit } from './cluster-birth.js';
import {
  commandVersion,
  type MetaCommand,
  type MetaResult,
  type ReceivedCommand,
} from './commands.js';
import { changed, refused, unchanged, type Effect } from './effect.js';
import {
  applyEndMigration,
  applyFailMigration,
  applyMoveSlots,
  applySetMigration,
  applyStartMigrations,
  applyThrottleMigration,
} from './migration-commands.js';
import { promoted } from './migrations.js';
import { applyPinFilled, applyPinGone, applyPinKeys, applyUnpinKeys } from './pin-commands.js';
import {
  applyAddNode,
  applyDrain,
  applyRemoveNode,
  applySetLabels,
  applySetNodeState,
  applySetWeight,
  applyUndrain,
} from './node-commands.js';
import { applyEndOperation } from './operations.js';
import { applyRecoverGroup } from './recovery-command.js';
import { problemOfSetting } from './settings.js';
import {
  applyAddReplica,
  applyCreateShard,
  applyRemoveReplica,
  applyReplaceReplica,
  applySetLeader,
  applySetMetadata,
} from './shard-commands.js';
import { applyMergeShard, applyRemoveShard, applySplitShard } from './shard-reshaping.js';
import type { Topology } from './topology.js';

export interface Application {
  readonly topology: Topology;
  readonly result: MetaResult;
}

export function applyCommand(
  topology: Topology,
  { command, ifVersion, version: written = commandVersion }: ReceivedCommand,
): Application {
  const effect = problemOfVersion(topology, ifVersion) ?? effectOf(topology, command, written);
  const { version } = topology;
  switch (effect.kind) {
    case 'refused':
      return { topology, result: { ...effect, version } };
    case 'unchanged':
      return {
        topology,
        result: { kind: 'done', changed: false, version, issued: effect.issued },
      };
    case 'changed': {
      // Later than both: a recovery leaps ahead by more than one.
      const next = effect.topology.version + 1;
      return {
        topology: { ...promoted(effect.topology), version: next },
        result: { kind: 'done', changed: true, version: next, issued: effect.issued },
      };
    }
  }
}

/** Compare and set: what was decided by an old copy is not done to a newer cluster. */
function problemOfVersion(
  { version }: Topology,
  ifVersion: number | undefined,
): Effect | undefined {
  if (ifVersion === undefined || ifVersion === version) return undefined;
  return ifVersion > version
    ? refused(
        'futureVersion',
        `version ${ifVersion} is asked for and this cluster is at ${version}: ` +
          'the number comes from another cluster, or from before a restore',
      )
    : refused(
        'versionMoved',
        `version ${ifVersion} is asked for and this cluster is at ${version} by now: ` +
          'read it again and decide anew',
      );
}

/** `written`: the version of the command (rule D16). */
function effectOf(topology: Topology, command: MetaCommand, written: number): Effect {
  if (command.kind === 'init') return applyInit(topology, command);
  if (topology.version === 0)
    return refused('noCluster', 'there is no cluster yet: begin with `quorate cluster init`');
  switch (command.kind) {
    case 'addNode':
      return applyAddNode(topology, command);
    case 'setNodeState':
      return applySetNodeState(topology, command);
    case 'setWeight':
      return applySetWeight(topology, command);
    case 'setLabels':
      return applySetLabels(topology, command);
    case 'drain':
      return applyDrain(topology, command);
    case 'undrain':
      return applyUndrain(topology, command);
    case 'removeNode':
      return applyRemoveNode(topology, command);
    case 'addReplica':
      return applyAddReplica(topology, command);
    case 'removeReplica':
      return applyRemoveReplica(topology, command);
    case 'replaceReplica':
      return applyReplaceReplica(topology, command);
    case 'setLeader':
      return applySetLeader(topology, command);
    case 'createShard':
      return applyCreateShard(topology, command);
    case 'setSetting':
      return applySetSetting(topology, command, written);
    case 'endOperation':
      return applyEndOperation(topology, command);
    case 'setMetadata':
      return applySetMetadata(topology, command);
    case 'hash':
      return unchanged();
    case 'recoverGroup':
      return applyRecoverGroup(topology, command, written);
    case 'startMigrations':
      return applyStartMigrations(topology, command);
    case 'setMigration':
      return applySetMigration(topology, command);
    case 'throttleMigration':
      return applyThrottleMigration(topology, command);
    case 'moveSlots':
      return applyMoveSlots(topology, command);
    case 'failMigration':
      return applyFailMigration(topology, command);
    case 'endMigration':
      return applyEndMigration(topology, command);
    case 'removeShard':
      return applyRemoveShard(topology, command);
    case 'mergeShard':
      return applyMergeShard(topology, command);
    case 'splitShard':
      return applySplitShard(topology, command);
    case 'pinKeys':
      return applyPinKeys(topology, command);
    case 'unpinKeys':
      return applyUnpinKeys(topology, command);
    case 'pinFilled':
      return applyPinFilled(topology, command);
    case 'pinGone':
      return applyPinGone(topology, command);
  }
}

function applySetSetting(
  topology: Topology,
  { name, value }: { readonly name: string; readonly value: number },
  written: number,
): Effect {
  const { settings } = topology;
  const problem = problemOfSetting(settings, { name, value }, written);
  if (problem !== undefined) return refused('badSetting', problem);
  if (settings[name] === value) return unchanged();
  return changed({ ...topology, settings: { ...settings, [name]: value } });
}
