/**
 * The Huffman code of HPACK (RFC 7541, appendix B), decoding only: four bits at a time through a
 * table made from the lengths of the codes. The code is canonical, so its lengths say it all.
 */

/** Bits of the code of each byte, and at the end of EOS. */
export const codeLengths: readonly number[] = [
  13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
  28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5,
  6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
  7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6,
  7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23,
  23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22,
  22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22,
  23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27,
  27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25,
  24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];
const eos = 256;
const none = -1;

interface Tables {
  /** By state * 16 + four bits: the next state, or `none` where EOS would be. */
  readonly next: Int16Array;
  /** The byte that ends within these four bits, or `none`: no code is shorter than five bits. */
  readonly emits: Int16Array;
  /** Whether a string may end in this state: up to 7 bits of padding, all of them 1. */
  readonly mayEnd: Uint8Array;
}

/** An inner node of the code's tree; children are nodes, or leaves as ~symbol. */
type TreeNode = [zero: number, one: number];

function buildTree(): TreeNode[] {
  const symbols = codeLengths.map((length, symbol) => ({ length, symbol }));
  symbols.sort((a, b) => a.length - b.length || a.symbol - b.symbol);
  const nodes: TreeNode[] = [[0, 0]];
  let code = 0;
  let bits = 0;
  for (const { length, symbol } of symbols) {
    // Canonical: the codes of each length are consecutive numbers, and go on from the shorter ones.
    code *= 2 ** (length - bits);
    bits = length;
    let at = 0;
    for (let bit = length - 1; bit > 0; bit--) at = childOf(nodes, at, (code >>> bit) & 1);
    const last = nodes[at];
    if (last !== undefined) last[code & 1] = ~symbol;
    code += 1;
  }
  return nodes;
}

/** The child, made if it is not there: node 0 is the root and nobody's child. */
function childOf(nodes: TreeNode[], at: number, bit: number): number {
  const node = nodes[at];
  if (node === undefined) return 0;
  const side = bit === 0 ? 0 : 1;
  if (node[side] === 0) node[side] = nodes.push([0, 0]) - 1;
  return node[side];
}

function buildTables(): Tables {
  const nodes = buildTree();
  const next = new Int16Array(nodes.length * 16);
  const emits = new Int16Array(nodes.length * 16).fill(none);
  for (let entry = 0; entry < next.length; entry++) {
    let at = entry >>> 4;
    for (let bit = 3; bit >= 0 && at !== none; bit--) {
      const child = nodes[at]?.[(entry >>> bit) & 1] ?? 0;
      if (child >= 0) at = child;
      else if (~child === eos) at = none;
      else {
        emits[entry] = ~child;
        at = 0;
      }
    }
    next[entry] = at;
  }
  const mayEnd = new Uint8Array(nodes.length);
  let at = 0;
  for (let bits = 0; bits <= 7; bits++) {
    mayEnd[at] = 1;
    at = nodes[at]?.[1] ?? 0;
  }
  return { next, emits, mayEnd };
}

const { next, emits, mayEnd } = buildTables();

/**
 * The bytes as a latin1 string; undefined when they are no valid code (RFC 7541, 5.2). At most 8/5 as
 * long as what is decoded.
 */
export function decodeHuffman(bytes: Buffer): string | undefined {
  const out = Buffer.allocUnsafe(Math.floor((bytes.length * 8) / 5));
  let length = 0;
  let state = 0;
  for (let half = 0; half < 2 * bytes.length; half++) {
    const byte = bytes[half >>> 1] ?? 0;
    const entry = state * 16 + ((half & 1) === 0 ? byte >>> 4 : byte & 15);
    const symbol = emits[entry] ?? none;
    if (symbol !== none) out[length++] = symbol;
    state = next[entry] ?? none;
    if (state === none) return undefined;
  }
  return mayEnd[state] === 1 ? out.toString('latin1', 0, length) : undefined;
}
