/* fuzz_engine.c - a client and a server engine with a pipe each way, driven by the input: verbs with small arguments, bytes
 * moved whole or in pieces, damaged, or put in from the input. After every step: no broken invariant, every span
 * readable, every frame out well-formed and within the peer's size. At the end: every delivery taken has left exactly once,
 * and all memory is given back.
 *
 * Input: one byte of options (1: pipelined, 2: SASL, 4: trace, 8: allocations fail from the n-th on, n in the next byte),
 * then operations of one byte (bits 0-3 what, bit 4 which engine, bits 5-7 variant) and their arguments. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "heap.h"
#include "plain_main.h"
#include "uam_codec.h"

#define MUST(condition) ((condition) ? (void)0 : broken(#condition, __LINE__))

static void broken(const char *what, int line) {
  fprintf(stderr, "line %d: does not hold: %s\n", line, what);
  abort();
}

enum { PIPE = 1 << 17, IDS = 64, HELD = 4096 };

typedef struct held {
  uint32_t link, id;
} held;

typedef struct side {
  uam_engine *e;
  uam_io io;
  uint8_t pipe[PIPE]; /* bytes on their way to this side */
  size_t piped;
  uint8_t out[PIPE]; /* what this side sent and is not yet a whole frame */
  size_t out_len;
  uint32_t sessions[IDS], links[IDS];
  size_t n_sessions, n_links;
  uint32_t answers[IDS]; /* sessions or links of the peer that wait for our begin or attach */
  bool answer_link[IDS], answer_sender[IDS];
  size_t n_answers;
  held held[HELD];
  size_t n_held;
  uint32_t last_delivery, last_link;
  bool has_lost, dead;
} side;

static side sides[2];
static uint64_t now;
static volatile uint8_t sink;
static bool no_memory;

/* ---- arguments, made once from text ---- */

typedef struct list {
  uint8_t bytes[256];
  size_t n;
} list;

static list opens[4], begins[4], senders[4], receivers[4], states[4], errors[2];

static void make(list *l, const char *text, size_t skip) {
  uint8_t frame[512];
  int64_t n = uam_undump(text, strlen(text), frame, sizeof frame);
  MUST(n > (int64_t)skip && n <= (int64_t)sizeof frame);
  l->n = (size_t)n - skip;
  memcpy(l->bytes, frame + skip, l->n);
}

static void make_all(void) {
  if (opens[0].n != 0) return;
  make(&opens[0], "ch=0 open(container-id=\"a\")", 11);
  make(&opens[1], "ch=0 open(container-id=\"b\" max-frame-size=512 channel-max=2 idle-time-out=1000)", 11);
  make(&opens[2], "ch=0 open(container-id=\"c\" max-frame-size=4096 channel-max=0 properties={:a=1u8})", 11);
  make(&opens[3], "ch=0 open(container-id=\"\" idle-time-out=100)", 11);
  make(&begins[0], "ch=0 begin(next-outgoing-id=0 incoming-window=100 outgoing-window=100)", 11);
  make(&begins[1], "ch=0 begin(next-outgoing-id=4294967290 incoming-window=1 outgoing-window=1 handle-max=1)", 11);
  make(&begins[2], "ch=0 begin(next-outgoing-id=1 incoming-window=0 outgoing-window=0)", 11);
  make(&begins[3], "ch=0 begin(next-outgoing-id=2147483647 incoming-window=4294967295 outgoing-window=5 handle-max=0)",
       11);
  make(&senders[0], "ch=0 attach(name=\"s\" handle=0 role=false source=source() target=target(address=\"q\"))", 11);
  make(&senders[1], "ch=0 attach(name=\"t\" handle=0 role=false snd-settle-mode=1)", 11);
  make(&senders[2], "ch=0 attach(name=\"u\" handle=0 role=false snd-settle-mode=0 max-message-size=100)", 11);
  make(&senders[3], "ch=0 attach(name=\"\" handle=0 role=false unsettled={h'01'=accepted()})", 11);
  make(&receivers[0], "ch=0 attach(name=\"s\" handle=0 role=true source=source(address=\"q\") target=target())", 11);
  make(&receivers[1], "ch=0 attach(name=\"t\" handle=0 role=true rcv-settle-mode=1)", 11);
  make(&receivers[2], "ch=0 attach(name=\"u\" handle=0 role=true max-message-size=10)", 11);
  make(&receivers[3], "ch=0 attach(name=\"v\" handle=0 role=true initial-delivery-count=5)", 11);
  make(&states[0], "ch=0 accepted()", 8);
  make(&states[1], "ch=0 rejected(error=error(condition=:a))", 8);
  make(&states[2], "ch=0 received(section-number=1 section-offset=2)", 8);
  make(&states[3], "ch=0 described(0x99u64 null)", 8);
  errors[0].n = 0;
  make(&errors[1], "ch=0 error(condition=:amqp:internal-error description=\"x\")", 8);
}

/* ---- the input ---- */

typedef struct input {
  const uint8_t *p, *end;
} input;

static uint8_t byte_of(input *in) { return in->p != in->end ? *in->p++ : 0; }

static uam_span bytes_of(input *in) {
  size_t n = byte_of(in), left = (size_t)(in->end - in->p);
  uam_span s = {in->p, n < left ? n : left};
  in->p += s.len;
  return s;
}

/* ---- what must hold ---- */

/* Memory may be short when it was made so; the caller may be wrong; nothing else. */
static void allowed(side *s, int64_t rc) {
  MUST(rc != UAM_ERR_BROKEN);
  MUST(rc != UAM_ERR_NOMEM || no_memory);
  if (rc == UAM_ERR_NOMEM) s->dead = true;
}

static void read_span(const side *s, const uam_event *ev, uint64_t offset, uint64_t length) {
  if (length == 0) return;
  const uint8_t *p = (ev->flags & UAM_FLAG_ADDRESS) != 0 ? (const uint8_t *)(uintptr_t)offset : s->io.base + offset;
  for (uint64_t i = 0; i < length; i++) sink = (uint8_t)(sink + p[i]);
}

static void leave(side *s, const uam_event *ev) {
  bool terminal = ev->code != UAM_OUT_RECEIVED || (ev->flags & UAM_FLAG_SETTLED) != 0;
  size_t kept = 0;
  for (size_t i = 0; i < s->n_held; i++) {
    bool meant = s->held[i].link == ev->id && s->held[i].id - ev->first <= ev->last - ev->first;
    if (!meant || !terminal) s->held[kept++] = s->held[i];
  }
  s->n_held = kept;
}

static void add_id(uint32_t *ids, size_t *n, uint32_t id) {
  if (*n < IDS) ids[(*n)++] = id;
}

static void on_event(side *s, const uam_event *ev) {
  MUST(ev->kind >= UAM_EVENT_CONN_STATE && ev->kind <= UAM_EVENT_LATE && !s->has_lost);
  read_span(s, ev, ev->offset, ev->length);
  if (ev->kind == UAM_EVENT_MESSAGE) {
    read_span(s, ev, ev->tag_offset, ev->tag_length);
    s->last_delivery = ev->first;
    s->last_link = ev->id;
  }
  if (ev->kind == UAM_EVENT_SETTLED) leave(s, ev);
  if (ev->kind == UAM_EVENT_LOST) s->has_lost = true;
  bool asks = (ev->kind == UAM_EVENT_BEGIN || ev->kind == UAM_EVENT_ATTACH) && (ev->flags & UAM_FLAG_REPLY) == 0;
  if (!asks || s->n_answers == IDS) return;
  s->answer_link[s->n_answers] = ev->kind == UAM_EVENT_ATTACH;
  s->answer_sender[s->n_answers] = (ev->flags & UAM_FLAG_SENDER) != 0;
  s->answers[s->n_answers++] = ev->id;
}

/* Whole frames only, well-formed ones, none above the peer's limit. */
static void check_out(side *s) {
  uam_conn_info info;
  static char text[1 << 12];
  if (uam_get_conn(s->e, &info) != UAM_OK) return;
  uint32_t limit = info.remote_max_frame_size > 512 ? info.remote_max_frame_size : 512;
  size_t at = 0, used = 1;
  while (at != s->out_len) {
    (void)uam_dump(s->out + at, s->out_len - at, 1, text, sizeof text, &used);
    if (used == 0) break;
    MUST(memcmp(text, "raw", 3) != 0 && used <= limit);
    at += used;
  }
  memmove(s->out, s->out + at, s->out_len - at);
  s->out_len -= at;
}

/* ---- steps ---- */

static void take_out(side *s, side *peer, size_t most) {
  size_t n = s->io.out_len < most ? s->io.out_len : most;
  if (n > PIPE - peer->piped) n = PIPE - peer->piped;
  if (n > PIPE - s->out_len) n = PIPE - s->out_len;
  if (n == 0) return;
  memcpy(peer->pipe + peer->piped, s->io.out, n);
  memcpy(s->out + s->out_len, s->io.out, n);
  peer->piped += n;
  s->out_len += n;
  s->io.sent = n;
}

static void step(side *s, size_t receive, size_t send, bool dry) {
  if (s->dead) return;
  side *peer = &sides[s == sides];
  s->io.now = now;
  s->io.dry = dry ? 1 : 0;
  s->io.received = receive < s->piped ? receive : s->piped;
  if (s->io.in == NULL) s->io.received = 0;
  if (s->io.received > s->io.in_cap) s->io.received = s->io.in_cap;
  size_t n = s->io.received;
  if (n != 0) memcpy(s->io.in, s->pipe, n);
  memmove(s->pipe, s->pipe + n, s->piped - n);
  s->piped -= n;
  take_out(s, peer, send);
  int rc = uam_step(s->e, &s->io);
  allowed(s, rc);
  if (rc != UAM_OK) {
    s->io = (uam_io){.flushed = s->io.flushed};
    s->dead = true;
    return;
  }
  for (size_t i = 0; i < s->io.n_events; i++) on_event(s, &s->io.events[i]);
  check_out(s);
}

/* Verbs may move the output: the window is asked for again. */
static void refresh(side *s) {
  if (s->dead) return;
  s->io.out = uam_send_window(s->e, &s->io.out_len);
}

static void pump(unsigned rounds) {
  for (unsigned i = 0; i < rounds; i++) {
    for (int k = 0; k < 2; k++) {
      refresh(&sides[k]);
      step(&sides[k], PIPE, PIPE, true);
    }
  }
}

static uint32_t pick(const uint32_t *ids, size_t n, uint8_t which) { return n != 0 ? ids[which % n] : which; }

static void do_begin(side *s, uint32_t session, unsigned variant) {
  const list *l = &begins[variant & 3];
  int64_t id = uam_begin(s->e, session, l->bytes, l->n);
  allowed(s, id);
  if (id > 0 && session == 0) add_id(s->sessions, &s->n_sessions, (uint32_t)id);
}

static void do_attach(side *s, uint32_t session, uint32_t link, bool sender, unsigned variant) {
  const list *l = sender ? &senders[variant & 3] : &receivers[variant & 3];
  int64_t id = uam_attach(s->e, session, link, l->bytes, l->n);
  allowed(s, id);
  if (id > 0) add_id(s->links, &s->n_links, (uint32_t)id);
}

static void answer(side *s, unsigned variant) {
  for (size_t i = 0; i < s->n_answers; i++) {
    uam_link_info info;
    if (!s->answer_link[i]) {
      add_id(s->sessions, &s->n_sessions, s->answers[i]);
      do_begin(s, s->answers[i], variant);
    } else if (uam_get_link(s->e, s->answers[i], &info) == UAM_OK) {
      do_attach(s, info.session, s->answers[i], s->answer_sender[i], variant);
    }
  }
  s->n_answers = 0;
}

static void do_send(side *s, input *in, unsigned variant) {
  static uint8_t payload[1 << 13];
  uint32_t link = pick(s->links, s->n_links, byte_of(in)), first = 0;
  uint32_t n = byte_of(in) % 8u, size = byte_of(in), lens[8];
  if ((variant & 4) != 0) size *= 4;
  for (uint32_t i = 0; i < 8; i++) lens[i] = size;
  int64_t taken = uam_send_messages(s->e, link, payload, lens, n, 0, (int)(variant & 3), &first);
  allowed(s, taken);
  for (int64_t i = 0; i < taken; i++) {
    MUST(s->n_held < HELD);
    s->held[s->n_held++] = (held){link, first + (uint32_t)i};
  }
}

static void do_settle(side *s, input *in, unsigned variant) {
  uint32_t link = (variant & 4) != 0 ? s->last_link : pick(s->links, s->n_links, byte_of(in));
  uint32_t first = (variant & 4) != 0 ? s->last_delivery : byte_of(in);
  uint32_t last = first + byte_of(in) % 4u;
  const list *l = &states[byte_of(in) % 4];
  bool settled = (variant & 1) != 0;
  uam_event ev = {.id = link, .first = first, .last = last, .flags = UAM_FLAG_SETTLED};
  int rc = uam_settle(s->e, link, first, last, settled, l->bytes, (variant & 2) != 0 ? l->n : 0);
  allowed(s, rc);
  if (rc >= 0 && settled) leave(s, &ev); /* given up by us: no event is owed */
}

static void do_stop(side *s, input *in, unsigned variant) {
  const list *error = &errors[variant >> 2 & 1];
  uint8_t which = byte_of(in);
  switch (variant & 3) {
    case 0: allowed(s, uam_detach(s->e, pick(s->links, s->n_links, which), which & 1, error->bytes, error->n)); break;
    case 1: allowed(s, uam_end(s->e, pick(s->sessions, s->n_sessions, which), error->bytes, error->n)); break;
    case 2: allowed(s, uam_close(s->e, error->bytes, error->n)); break;
    default: allowed(s, uam_lost(s->e)); break;
  }
}

static void inject(side *s, input *in, bool frame) {
  uint8_t header[8] = {0, 0, 0, 0, 2};
  uint8_t channel = frame ? byte_of(in) : 0;
  uam_span body = bytes_of(in);
  if (s->piped + body.len + 8 > PIPE) return;
  store_be32(header, (uint32_t)body.len + 8);
  header[5] = channel >> 7;
  header[7] = channel & 0x7f;
  if (frame) {
    memcpy(s->pipe + s->piped, header, 8);
    s->piped += 8;
  }
  if (body.len != 0) memcpy(s->pipe + s->piped, body.ptr, body.len);
  s->piped += body.len;
}

static void do_other(side *s, input *in, unsigned variant) {
  size_t n = 0;
  int option;
  uam_span data = {(const uint8_t *)"ab", 2};
  switch (variant) {
    case 0: allowed(s, uam_drained(s->e, pick(s->links, s->n_links, byte_of(in)))); break;
    case 1: allowed(s, uam_sasl_challenge(s->e, data.ptr, data.len)); break;
    case 2: allowed(s, uam_sasl_response(s->e, data.ptr, data.len)); break;
    case 3: allowed(s, uam_sasl_outcome(s->e, byte_of(in))); break;
    case 4:
      option = byte_of(in) % 8;
      (void)uam_set(s->e, option, byte_of(in));
      break;
    case 5: sink = (uint8_t)*uam_trace(s->e, &n); break;
    case 6: s->io.flushed = uam_committed(s->e); break;
    default: now += byte_of(in) * 16u; break;
  }
}

static void operate(input *in) {
  uint8_t op = byte_of(in);
  side *s = &sides[op >> 4 & 1];
  unsigned variant = op >> 5;
  if (s->dead) return;
  bool two = (op & 15) == 1 || (op & 15) == 2 || (op & 15) == 8;
  uint8_t a = two ? byte_of(in) : 0, b = two ? byte_of(in) : 0;
  switch (op & 15) {
    case 0: pump(variant + 1); break;
    case 1: step(s, a, b, false); break;
    case 2:
      if (s->piped != 0) s->pipe[a % s->piped] ^= b;
      break;
    case 3: inject(s, in, false); break;
    case 4: inject(s, in, true); break;
    case 5: allowed(s, uam_open(s->e, opens[variant & 3].bytes, opens[variant & 3].n)); break;
    case 6: do_begin(s, 0, variant); break;
    case 7: do_attach(s, pick(s->sessions, s->n_sessions, byte_of(in)), 0, (variant & 4) != 0, variant); break;
    case 8:
      allowed(s, uam_flow(s->e, pick(s->links, s->n_links, a), b,
                          (variant & 1 ? UAM_FLAG_DRAIN : 0) | (variant & 2 ? UAM_FLAG_ECHO : 0)));
      break;
    case 9:
    case 10: do_send(s, in, variant); break;
    case 11: do_settle(s, in, variant); break;
    case 12: do_stop(s, in, variant); break;
    case 13: answer(s, variant); break;
    case 14: do_other(s, in, variant); break;
    default: pump(2); break;
  }
  refresh(s);
}

/* ---- life ---- */

static bool start(int k, heap *h, unsigned options) {
  side *s = &sides[k];
  uam_mem mem = heap_mem(h);
  s->n_held = s->n_links = s->n_sessions = s->n_answers = s->out_len = 0;
  s->piped = 0;
  s->has_lost = s->dead = false;
  s->io = (uam_io){0};
  s->last_link = s->last_delivery = 0;
  s->e = uam_new(&mem, k == 0 ? UAM_CLIENT : UAM_SERVER);
  if (s->e == NULL) return false;
  (void)uam_set(s->e, UAM_OPT_PIPELINE, options & 1);
  if ((options & 4) != 0) (void)uam_set(s->e, UAM_OPT_TRACE, 2);
  if ((options & 2) != 0 && k == 0) allowed(s, uam_sasl_client(s->e, "PLAIN", (const uint8_t *)"\0a\0b", 4, 1, "h"));
  if ((options & 2) != 0 && k == 1) allowed(s, uam_sasl_server(s->e, "ANONYMOUS PLAIN"));
  return true;
}

static void finish(int k) {
  side *s = &sides[k];
  for (int i = 0; i < 4 && !s->dead && !s->has_lost; i++) {
    allowed(s, uam_lost(s->e));
    step(s, 0, 0, false);
  }
  if (!s->dead) MUST(s->has_lost && s->n_held == 0);
  uam_free(s->e);
  s->e = NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  if (n < 2 || n > 4096) return 0;
  make_all();
  input in = {data + 2, data + n};
  heap h = {0};
  now = 1000;
  no_memory = (data[0] & 8) != 0;
  h.fail = no_memory ? 1u + data[1] : 0;
  bool ready = start(0, &h, data[0]);
  ready = start(1, &h, data[0]) && ready;
  while (ready && in.p != in.end) operate(&in);
  for (int k = 0; k < 2; k++) {
    if (ready) finish(k);
    else uam_free(sides[k].e);
  }
  MUST(h.live == 0);
  return 0;
}
