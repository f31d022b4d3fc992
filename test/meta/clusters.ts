/** Commands and clusters that the tests of the metadata group begin with. */
import { applyCommand, type Application } from '../../src/meta/apply-command.js';
import type { CommandOf, MetaCommand, MetaResult } from '../../src/meta/commands.js';
import { noCluster, type Topology } from '../../src/meta/topology.js';

type FirstNode = CommandOf<'init'>['nodes'][number];

export function directoryOf(number: number): string {
  return number.toString(16).padStart(32, '0');
}

export function firstNode(id: number, fields: Partial<FirstNode> = {}): FirstNode {
  return {
    id,
    directoryId: directoryOf(id),
    peerAddress: `node-${id}:7401`,
    clientAddress: `node-${id}:7400`,
    labels: {},
    weight: 100,
    ...fields,
  };
}

export function initOf(
  nodes: readonly FirstNode[],
  fields: Partial<CommandOf<'init'>> = {},
): CommandOf<'init'> {
  return {
    kind: 'init',
    clusterId: 'test',
    nodes,
    metadata: nodes.slice(0, 3).map(({ id }) => ({ replica: id, node: id })),
    shards: 4,
    replication: Math.min(3, nodes.length),
    nowMs: 1_000,
    ...fields,
  };
}

export function joinOf(number: number, fields: Partial<FirstNode> = {}): CommandOf<'addNode'> {
  const { id: _, ...node } = firstNode(number, fields);
  return { kind: 'addNode', ...node, nowMs: 2_000 };
}

export function firstNodes(count: number): readonly FirstNode[] {
  return Array.from({ length: count }, (_, at) => firstNode(at + 1));
}

export function apply(topology: Topology, command: MetaCommand, ifVersion?: number): Application {
  return applyCommand(topology, ifVersion === undefined ? { command } : { command, ifVersion });
}

/** Applies commands one after another; each must change something. */
export function after(topology: Topology, ...commands: readonly MetaCommand[]): Topology {
  return commands.reduce((now, command) => {
    const { topology: next, result } = apply(now, command);
    if (result.kind !== 'done' || !result.changed)
      throw new Error(`${JSON.stringify(command)} changed nothing: ${JSON.stringify(result)}`);
    return next;
  }, topology);
}

export function clusterOf(nodes: number, fields: Partial<CommandOf<'init'>> = {}): Topology {
  return after(noCluster, initOf(firstNodes(nodes), fields));
}

export function reasonOf(result: MetaResult): string {
  return result.kind === 'refused' ? result.reason : 'not refused';
}
