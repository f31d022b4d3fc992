/**
 * Who speaks to whom. The first frame in each direction: Hello, then HelloReply (peer.proto). A
 * connection from another cluster, for another node, from an unknown node, or from a node whose data
 * directory is not the one it had before is refused, with a code and a sentence (D40, R24).
 */
import { codecOf } from '../../proto/definitions.js';
import type { NodeId } from '../../raft/index.js';

/** 3: messages and snapshots carry the generation of their group, in 8 bytes. */
export const peerProtocol = 3;

export interface Hello {
  protocol: number;
  clusterId: string;
  nodeId: number;
  toNodeId: number;
  directoryId: Uint8Array;
  purpose: string;
  clockMs: number;
}

export interface HelloReply {
  accepted: boolean;
  code: string;
  message: string;
  nodeId: number;
  directoryId: Uint8Array;
  clockMs: number;
}

export const helloCodec = codecOf<Hello>('quorate.v1.Hello');
export const helloReplyCodec = codecOf<HelloReply>('quorate.v1.HelloReply');

/** Directory ids of the nodes as first met; kept across restarts. */
export interface DirectoryRegistry {
  known(node: number): Uint8Array | undefined;
  /** Durable on return. */
  remember(node: number, directoryId: Uint8Array): void;
}

export interface OwnIdentity {
  readonly clusterId: string;
  readonly nodeId: NodeId;
  /** 16 bytes. */
  readonly directoryId: Uint8Array;
}

export type Refusal =
  | 'PROTOCOL'
  | 'OTHER_CLUSTER'
  | 'OTHER_NODE'
  | 'UNKNOWN_NODE'
  | 'OTHER_DIRECTORY'
  | 'NOT_REMEMBERED';

export interface Verdict {
  readonly code: Refusal;
  readonly message: string;
}

/** Checks a Hello that came in; undefined: welcome (and remembered). */
export function judgeHello(
  hello: Hello,
  own: OwnIdentity,
  peers: { readonly isKnown: (node: number) => boolean; readonly registry: DirectoryRegistry },
): Verdict | undefined {
  if (hello.protocol !== peerProtocol) {
    return {
      code: 'PROTOCOL',
      message: `peer protocol ${hello.protocol} is not spoken here, ${peerProtocol} is`,
    };
  }
  if (hello.purpose !== 'raft' && hello.purpose !== 'snapshot') {
    return { code: 'PROTOCOL', message: `a connection for '${hello.purpose}' is not known here` };
  }
  if (hello.clusterId !== own.clusterId) {
    return {
      code: 'OTHER_CLUSTER',
      message: `this is cluster '${own.clusterId}', not '${hello.clusterId}': check --cluster-id`,
    };
  }
  if (hello.toNodeId !== own.nodeId) {
    return {
      code: 'OTHER_NODE',
      message: `this is node ${own.nodeId}, not ${hello.toNodeId}: check --initial-cluster`,
    };
  }
  if (hello.nodeId === own.nodeId) {
    return {
      code: 'OTHER_NODE',
      message: `node ${own.nodeId} is this one, and cannot be two: check --node-id`,
    };
  }
  if (!peers.isKnown(hello.nodeId)) {
    return {
      code: 'UNKNOWN_NODE',
      message: `node ${hello.nodeId} is not a member of this cluster`,
    };
  }
  return judgeDirectory(hello.nodeId, hello.directoryId, peers.registry);
}

/** Checks the answer to our Hello; undefined: it is the node that was asked for, and welcomes us. */
export function judgeReply(
  reply: HelloReply,
  node: NodeId,
  registry: DirectoryRegistry,
): { readonly code: string; readonly message: string } | undefined {
  if (!reply.accepted) return reply;
  // Before the directory: what a stranger says must not become what is known of another node.
  if (reply.nodeId !== node) {
    return {
      code: 'OTHER_NODE',
      message: `node ${reply.nodeId} answers at the address of node ${node}: check --initial-cluster`,
    };
  }
  return judgeDirectory(node, reply.directoryId, registry);
}

/** Trust on first use: the first directory id of a node is the one it must keep. */
export function judgeDirectory(
  node: number,
  directoryId: Uint8Array,
  registry: DirectoryRegistry,
): Verdict | undefined {
  if (directoryId.byteLength !== 16) {
    return { code: 'OTHER_DIRECTORY', message: `node ${node} sent no directory id` };
  }
  const known = registry.known(node);
  if (known === undefined) {
    return rememberDirectory(node, directoryId, registry);
  }
  if (Buffer.compare(known, directoryId) === 0) return undefined;
  return {
    code: 'OTHER_DIRECTORY',
    message:
      `node ${node} has another data directory than before: its disk was wiped or replaced, or this is an ` +
      'impostor. It has forgotten its votes and must not come back under its old id: add it as a new node',
  };
}

/** A full disk is no reason to stop, but who cannot be remembered cannot be recognised later. */
function rememberDirectory(
  node: number,
  directoryId: Uint8Array,
  registry: DirectoryRegistry,
): Verdict | undefined {
  try {
    registry.remember(node, directoryId);
    return undefined;
  } catch (error) {
    return {
      code: 'NOT_REMEMBERED',
      message: `cannot write down who node ${node} is: ${String(error)}`,
    };
  }
}
