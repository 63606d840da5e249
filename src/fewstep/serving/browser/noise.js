// Noise streams: those of fewstep.sampling.NoiseStreams, so that a seed gives the same picture.
//
// A stream is torch's Mersenne Twister, seeded by numpy's SeedSequence of (seed, index). Uniform
// numbers are the same to the bit; normal ones to the rounding of a logarithm and a cosine.

const POOL = 4; // words that a SeedSequence keeps

/** A whole number from 0 on as 32-bit words, the lowest first. */
function words(number) {
  const all = [];
  for (let n = BigInt(number); n || !all.length; n >>= 32n) all.push(Number(n & 0xffffffffn));
  return all;
}

/** What SeedSequence's hash does with its constant on the way. */
function hash(constant, multiplier) {
  return (value) => {
    value ^= constant;
    constant = Math.imul(constant, multiplier);
    value = Math.imul(value, constant);
    return value ^ (value >>> 16);
  };
}

function mix(x, y) {
  const mixed = Math.imul(x, 0xca01f9dd) - Math.imul(y, 0x4973f715);
  return mixed ^ (mixed >>> 16);
}

/** The first two 32-bit words that numpy.random.SeedSequence(entropy) generates. */
export function seedSequence(entropy) {
  const given = entropy.flatMap(words);
  const into = hash(0x43b0d7e5, 0x931e8875);
  const pool = Array.from({ length: POOL }, (_, i) => into(given[i] ?? 0));
  for (let from = 0; from < POOL; from++)
    for (let to = 0; to < POOL; to++) if (from !== to) pool[to] = mix(pool[to], into(pool[from]));
  for (const word of given.slice(POOL))
    for (let to = 0; to < POOL; to++) pool[to] = mix(pool[to], into(word));
  const out = hash(0x8b51f9dd, 0x58f38ded);
  return [out(pool[0]) >>> 0, out(pool[1]) >>> 0];
}

const N = 624; // words of the Mersenne Twister's state
const M = 397;

/** MT19937 as torch seeds it, by 32 bits. */
export class Twister {
  constructor(seed) {
    this.state = new Uint32Array(N);
    this.state[0] = seed;
    for (let i = 1; i < N; i++) {
      const last = this.state[i - 1];
      this.state[i] = Math.imul(1812433253, last ^ (last >>> 30)) + i;
    }
    this.at = N;
  }

  twist() {
    const { state } = this;
    for (let i = 0; i < N; i++) {
      const y = (state[i] & 0x80000000) | (state[(i + 1) % N] & 0x7fffffff);
      state[i] = state[(i + M) % N] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
    }
    this.at = 0;
  }

  /** 32 random bits. */
  bits() {
    if (this.at === N) this.twist();
    let y = this.state[this.at++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  }

  /** Of [0, 1), with the 24 bits of a float. */
  float() {
    return (this.bits() & 0xffffff) / 2 ** 24;
  }

  /** Of [0, 1), with the 53 bits of a double. */
  double() {
    const high = this.bits();
    return ((high & 0x1fffff) * 2 ** 32 + this.bits()) / 2 ** 53;
  }
}

const LANES = 16; // numbers that torch makes of 16 uniform ones at once
const TAU = Math.fround(2 * Math.PI);

/** Box and Muller's transform of 16 uniform numbers, from `at` on. */
function transform(z, at) {
  for (let i = at; i < at + LANES / 2; i++) {
    const radius = Math.sqrt(-2 * Math.log(1 - z[i]));
    const angle = Math.fround(TAU * z[i + LANES / 2]);
    z[i] = radius * Math.cos(angle);
    z[i + LANES / 2] = radius * Math.sin(angle);
  }
}

/** The stream of one image: image `index` of a seed. */
export class Stream {
  constructor(seed, index, size) {
    this.twister = new Twister(seedOf(seed, index));
    this.size = size;
    this.kept = null;
  }

  /** The next draw: so many standard normal numbers. */
  normal() {
    const z = new Float32Array(this.size);
    if (this.size < LANES) return z.map(() => this.one());
    for (let i = 0; i < this.size; i++) z[i] = this.twister.float();
    for (let at = 0; at + LANES <= this.size; at += LANES) transform(z, at);
    if (this.size % LANES) {
      const at = this.size - LANES; // the last 16 are drawn again
      for (let i = at; i < this.size; i++) z[i] = this.twister.float();
      transform(z, at);
    }
    return z;
  }

  /** One number where there are fewer than 16: two come of a pair, the second is kept. */
  one() {
    if (this.kept !== null) {
      const kept = this.kept;
      this.kept = null;
      return kept;
    }
    const angle = 2 * Math.PI * this.twister.double();
    const radius = Math.sqrt(-2 * Math.log1p(-this.twister.double()));
    this.kept = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  }
}

/** The low 32 bits of the seed that Python gives torch: the 64 of a SeedSequence, halved. */
function seedOf(seed, index) {
  const [low, high] = seedSequence([seed, index]);
  return ((low >>> 1) | (high << 31)) >>> 0;
}
