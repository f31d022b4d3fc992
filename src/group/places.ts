/** Which node hosts a replica of a group: from the membership, and from whom messages came. */
import type { NodeId, RawNode, ReplicaId } from '../../raft/index.js';

export class Places {
  private readonly node: RawNode;
  private readonly nodeOf = new Map<ReplicaId, NodeId>();
  private membershipIndex = -1;

  constructor(node: RawNode) {
    this.node = node;
    this.follow();
  }

  of(replica: ReplicaId): NodeId | undefined {
    return this.nodeOf.get(replica);
  }

  /** A message of the replica came from this node. */
  learn(replica: ReplicaId, node: NodeId): void {
    if (this.nodeOf.get(replica) !== node) this.nodeOf.set(replica, node);
  }

  /** Nodes of all members. */
  nodes(): readonly NodeId[] {
    return this.node.membership.membership.members.map(({ node }) => node);
  }

  /** Looks at the membership in force; cheap when it is the one of the last time. */
  follow(): void {
    const { index, membership } = this.node.membership;
    if (index === this.membershipIndex) return;
    this.membershipIndex = index;
    for (const { id, node } of membership.members) this.nodeOf.set(id, node);
  }
}
