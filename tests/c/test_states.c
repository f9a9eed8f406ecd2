/* test_states.c - the tables of states.def against the engine: every input is tried in every state that can be reached. What
 * the table allows must lead where it says; what it does not allow must be refused - our own call with an error or by waiting
 * for its turn, the peer's frame with an error of the specification, or by discarding it where the specification says so. */
#include "check.h"
#include "heap.h"
#include "notation.h"
#include "uam_int.h"

enum machine { CONN, SESSION, LINK };
enum { MAX_PATH = 8, MAX_STATES = 16, MAX_INPUTS = 8 };

typedef struct input {
  const char *name;
  int number; /* of the machine's enum */
  bool ours;
  uint32_t code; /* the performative that leaves for it, 0: a header */
} input;

static const input conn_inputs[] = {{"R_HDR", UAM_R_HDR, false, 0},
                                    {"S_HDR", UAM_S_HDR, true, 0},
                                    {"S_OPEN", UAM_S_OPEN, true, UAM_COMPOSITE_open},
                                    {"R_OPEN", UAM_R_OPEN, false, UAM_COMPOSITE_open},
                                    {"S_CLOSE", UAM_S_CLOSE, true, UAM_COMPOSITE_close},
                                    {"S_CLOSE_ERR", UAM_S_CLOSE_ERR, true, UAM_COMPOSITE_close},
                                    {"R_CLOSE", UAM_R_CLOSE, false, UAM_COMPOSITE_close}};
static const input session_inputs[] = {{"S_BEGIN", UAM_S_BEGIN, true, UAM_COMPOSITE_begin},
                                       {"R_BEGIN", UAM_R_BEGIN, false, UAM_COMPOSITE_begin},
                                       {"S_END", UAM_S_END, true, UAM_COMPOSITE_end},
                                       {"S_END_ERR", UAM_S_END_ERR, true, UAM_COMPOSITE_end},
                                       {"R_END", UAM_R_END, false, UAM_COMPOSITE_end}};
static const input link_inputs[] = {{"S_ATTACH", UAM_S_ATTACH, true, UAM_COMPOSITE_attach},
                                    {"R_ATTACH", UAM_R_ATTACH, false, UAM_COMPOSITE_attach},
                                    {"S_DETACH", UAM_S_DETACH, true, UAM_COMPOSITE_detach},
                                    {"R_DETACH", UAM_R_DETACH, false, UAM_COMPOSITE_detach}};

typedef struct table {
  const char *name;
  enum machine machine;
  const input *inputs;
  int n_inputs, n_states;
  uint8_t (*next)(uint8_t state, int input);
  uint16_t event;
} table;

static const table tables[] = {
    {"conn", CONN, conn_inputs, 7, UAM_CONN_END + 1, uam_conn_next, UAM_EVENT_CONN_STATE},
    {"session", SESSION, session_inputs, 5, UAM_SESSION_DISCARDING + 1, uam_session_next, UAM_EVENT_SESSION_STATE},
    {"link", LINK, link_inputs, 4, UAM_LINK_DETACH_RCVD + 1, uam_link_next, UAM_EVENT_LINK_STATE},
};

/* ---- one engine, and what it said since the last input ---- */
typedef struct run {
  const table *t;
  heap heap;
  uam_engine *e;
  uint32_t session, link;
  uint8_t state;
  uint8_t path[8][2]; /* transitions since the last input */
  int n_path;
  bool fault, over;   /* the peer's error was told; the connection is closing or closed */
  uint32_t codes[16]; /* performatives that left since the last input; 0 a header */
  int n_codes;
} run;

static void note(run *r, const uam_event *ev) {
  if (ev->kind == r->t->event && r->n_path < 8) {
    r->path[r->n_path][0] = (uint8_t)ev->first;
    r->path[r->n_path++][1] = (uint8_t)ev->last;
    r->state = (uint8_t)ev->last;
  }
  if (ev->kind == UAM_EVENT_BEGIN) r->session = ev->id;
  if (ev->kind == UAM_EVENT_ATTACH) r->link = ev->id;
  if (ev->kind == UAM_EVENT_PEER_ERROR) r->fault = true;
  if (ev->kind == UAM_EVENT_CONN_STATE && ev->last >= UAM_CONN_CLOSE_RCVD) r->over = true;
}

static void note_events(run *r) {
  const uam_event *evs;
  size_t n = uam_events(r->e, &evs);
  for (size_t i = 0; i < n; i++) note(r, &evs[i]);
}

static void pump(run *r) {
  size_t n = 0;
  const uint8_t *p = uam_send_window(r->e, &n);
  for (size_t at = 0, size; at < n && (size = frame_size(p + at, n - at)) > 0; at += size)
    if (r->n_codes < 16) r->codes[r->n_codes++] = memcmp(p + at, "AMQP", 4) == 0 ? 0 : p[at + 10];
  CHECK(n == 0 || uam_send_commit(r->e, n, 0) == UAM_OK);
  note_events(r);
}

static void feed(run *r, const char *text) {
  size_t cap;
  uam_span f = frame_of(text);
  uint8_t *w = uam_recv_window(r->e, &cap);
  memcpy(w, f.ptr, f.len);
  CHECK(uam_recv_commit(r->e, f.len, 0) == UAM_OK);
  note_events(r);
}

static int64_t call(run *r, int (*f)(uam_engine *, const uint8_t *, size_t), const char *text) {
  uam_span v = text == NULL ? (uam_span){NULL, 0} : f == uam_open ? list_of(text) : value_of(text);
  return f(r->e, v.ptr, v.len);
}

static const char error_text[] = "error(condition=:amqp:internal-error)";

static int64_t conn_input(run *r, int what) {
  switch (what) {
    case UAM_R_HDR: feed(r, "AMQP 0.1.0.0"); return 0;
    case UAM_R_OPEN: feed(r, "open(container-id=\"p\")"); return 0;
    case UAM_R_CLOSE: feed(r, "close()"); return 0;
    case UAM_S_OPEN: return call(r, uam_open, "open(container-id=\"u\")");
    case UAM_S_CLOSE: return call(r, uam_close, NULL);
    case UAM_S_CLOSE_ERR: return call(r, uam_close, error_text);
    default: pump(r); return 0;
  }
}

static int64_t session_input(run *r, int what) {
  uam_span list = list_of("begin(next-outgoing-id=0 incoming-window=9 outgoing-window=9)"),
           error = value_of(error_text);
  switch (what) {
    case UAM_S_BEGIN: {
      int64_t id = uam_begin(r->e, r->session, list.ptr, list.len);
      if (id > 0) r->session = (uint32_t)id;
      return id < 0 ? id : 0;
    }
    case UAM_R_BEGIN:
      if (r->state == UAM_SESSION_BEGIN_SENT)
        feed(r, "begin(remote-channel=0 next-outgoing-id=0 incoming-window=9 outgoing-window=9)");
      else feed(r, "begin(next-outgoing-id=0 incoming-window=9 outgoing-window=9)");
      return 0;
    case UAM_S_END: return uam_end(r->e, r->session, NULL, 0);
    case UAM_S_END_ERR: return uam_end(r->e, r->session, error.ptr, error.len);
    default: feed(r, "end()"); return 0;
  }
}

static int64_t link_input(run *r, int what) {
  uam_span list = list_of("attach(name=\"l\" handle=0 role=false)");
  switch (what) {
    case UAM_S_ATTACH: {
      int64_t id = uam_attach(r->e, r->session, r->link, list.ptr, list.len);
      if (id > 0) r->link = (uint32_t)id;
      return id < 0 ? id : 0;
    }
    case UAM_R_ATTACH: feed(r, "attach(name=\"l\" handle=0 role=true)"); return 0;
    case UAM_S_DETACH: return uam_detach(r->e, r->link, 1, NULL, 0);
    default: feed(r, "detach(handle=0 closed=true)"); return 0;
  }
}

static int64_t give(run *r, int what) {
  r->n_path = r->n_codes = 0;
  r->fault = false;
  int64_t rc = r->t->machine == CONN      ? conn_input(r, what)
               : r->t->machine == SESSION ? session_input(r, what)
                                          : link_input(r, what);
  if (r->t->machine != CONN || what == UAM_S_OPEN || what == UAM_S_CLOSE || what == UAM_S_CLOSE_ERR ||
      r->state >= UAM_CONN_HDR_EXCH)
    pump(r);
  return rc;
}

static void start(run *r, const table *t) {
  *r = (run){.t = t};
  uam_mem mem = heap_mem(&r->heap);
  r->e = uam_new(&mem, UAM_CLIENT);
  if (r->e == NULL) abort();
  uam_set(r->e, UAM_OPT_PIPELINE, 1);
  if (t->machine == CONN) return;
  call(r, uam_open, "open(container-id=\"u\")");
  feed(r, "AMQP 0.1.0.0");
  feed(r, "open(container-id=\"p\")");
  if (t->machine == LINK) {
    uam_span list = list_of("begin(next-outgoing-id=0 incoming-window=9 outgoing-window=9)");
    r->session = (uint32_t)uam_begin(r->e, 0, list.ptr, list.len);
    pump(r);
    feed(r, "begin(remote-channel=0 next-outgoing-id=0 incoming-window=9 outgoing-window=9)");
  }
  pump(r);
  r->n_path = 0;
  r->over = false;
}

static void stop(run *r) {
  uam_free(r->e);
  CHECK(r->heap.live == 0);
}

/* ---- judging one input ---- */
static const char *where(const table *t, uint8_t state, const input *in) {
  static char text[80];
  snprintf(text, sizeof text, "%s: state %u, input %s", t->name, state, in->name);
  return text;
}

static bool has_code(const run *r, uint32_t code) {
  for (int i = 0; i < r->n_codes; i++)
    if (r->codes[i] == code) return true;
  return false;
}

/* Steps that the engine takes by itself after another: sending what it owes. */
static bool follows(const table *t, uint8_t from, uint8_t to) {
  for (int i = 0; i < t->n_inputs; i++)
    if (t->inputs[i].ours && t->next(from, t->inputs[i].number) == to + 1) return true;
  return false;
}

static unsigned long allowed, refused;

/* A close of ours before our open: nobody was told of a connection, so it ends without a frame. */
static bool never_opened(const run *r, const input *in) {
  return r->t->machine == CONN && in->ours && in->code == UAM_COMPOSITE_close && r->state == UAM_CONN_END &&
         !has_code(r, UAM_COMPOSITE_close);
}

/* The peer ended first: the engine owes the answer and gives it by itself as soon as our begin (attach) has left. */
static bool owed(const run *r, uint8_t state, const input *in, int64_t rc) {
  uint8_t waiting = r->t->machine == SESSION ? (uint8_t)UAM_SESSION_END_RCVD : (uint8_t)UAM_LINK_DETACH_RCVD;
  return r->t->machine != CONN && state == waiting &&
         (in->code == UAM_COMPOSITE_end || in->code == UAM_COMPOSITE_detach) && rc == UAM_ERR_STATE;
}

static void judge_allowed(const run *r, uint8_t state, uint8_t next, const input *in, int64_t rc) {
  allowed++;
  if (owed(r, state, in, rc) || never_opened(r, in)) return;
  if (rc < 0) FAIL("%s: gives %ld", where(r->t, state, in), (long)rc);
  if (r->fault) FAIL("%s: is called a fault", where(r->t, state, in));
  int i = 0;
  if (next != state) {
    if (r->n_path == 0 || r->path[0][1] != next)
      FAIL("%s: leads to %d, not %u", where(r->t, state, in), r->n_path ? r->path[0][1] : -1, next);
    i = 1;
  }
  for (; i < r->n_path; i++)
    if (!follows(r->t, r->path[i][0], r->path[i][1])) FAIL("%s: goes on to %u", where(r->t, state, in), r->path[i][1]);
  if (in->ours && in->number != UAM_S_HDR && !has_code(r, in->code))
    FAIL("%s: nothing was sent", where(r->t, state, in));
}

/* What the peer may still send after our close, or sends after its own end, is discarded (§2.4.6, §2.5.5). An attach that
 * comes after a detach is another link. */
static bool discards(const table *t, uint8_t state) {
  if (t->machine == CONN) return state == UAM_CONN_DISCARDING || state == UAM_CONN_CLOSE_SENT || state == UAM_CONN_END;
  return t->machine == SESSION ? state == UAM_SESSION_END_RCVD : state == UAM_LINK_DETACH_RCVD;
}

/* The engine may have taken its own steps, such as the header in front of an open, and come to where the input is allowed. */
static bool own_steps(const run *r) {
  for (int i = 0; i < r->n_path; i++)
    if (!follows(r->t, r->path[i][0], r->path[i][1])) return false;
  return true;
}

static void judge_refused(const run *r, uint8_t state, const input *in, int64_t rc) {
  refused++;
  if (in->ours) {
    if (rc < 0 && rc != UAM_ERR_STATE) FAIL("%s: gives %ld", where(r->t, state, in), (long)rc);
    if (rc < 0 && (r->n_path > 0 || r->n_codes > 0)) FAIL("%s: is refused, but has an effect", where(r->t, state, in));
    if (!own_steps(r) && !never_opened(r, in)) FAIL("%s: leads to %u", where(r->t, state, in), r->state);
    if (r->n_path == 0 && r->n_codes > 0) FAIL("%s: was sent", where(r->t, state, in));
    return;
  }
  if (!r->fault && !discards(r->t, state)) FAIL("%s: no fault was found", where(r->t, state, in));
  if (r->fault && !r->over && r->t->machine != LINK && !has_code(r, UAM_COMPOSITE_end))
    FAIL("%s: the fault has no effect", where(r->t, state, in));
}

/* ---- all states, breadth first ---- */
typedef struct way {
  uint8_t state;
  int inputs[MAX_PATH], n;
} way;

static void follow(run *r, const table *t, const way *w) {
  start(r, t);
  for (int i = 0; i < w->n; i++) give(r, w->inputs[i]);
}

/* Once over, a machine begins again with a new object only. */
static bool is_over(const table *t, const way *w) {
  return w->n > 0 && (t->machine == CONN ? w->state == UAM_CONN_END : w->state == 0);
}

static void explore(const table *t) {
  static way ways[MAX_STATES * 2];
  bool known[MAX_STATES] = {false};
  int n = 1;
  ways[0] = (way){.n = 0};
  known[0] = true;
  for (int i = 0; i < n; i++) {
    for (int k = 0; k < t->n_inputs; k++) {
      const input *in = &t->inputs[k];
      run r;
      follow(&r, t, &ways[i]);
      if (r.state != ways[i].state) FAIL("%s: state %u was reached once only", t->name, ways[i].state);
      uint8_t state = r.state, next = t->next(state, in->number);
      int64_t rc = give(&r, in->number);
      if (next != 0 && !is_over(t, &ways[i])) judge_allowed(&r, state, (uint8_t)(next - 1), in, rc);
      else if (!is_over(t, &ways[i]) || in->ours) judge_refused(&r, state, in, rc);
      if (!known[r.state] && ways[i].n < MAX_PATH && !r.fault && rc >= 0) {
        known[r.state] = true;
        ways[n] = ways[i];
        ways[n].state = r.state;
        ways[n++].inputs[ways[i].n] = in->number;
        ways[n - 1].n = ways[i].n + 1;
      }
      stop(&r);
    }
  }
  for (int s = 0; s < t->n_states; s++) {
    bool passing = t->machine == CONN && s == UAM_CONN_HDR_RCVD; /* left at once: our header is the answer */
    if (!known[s] && !passing) FAIL("%s: state %d was not reached", t->name, s);
  }
}

/* The tables themselves: no way out of the end, and one out of everything else. */
static void check_table(const table *t) {
  for (uint8_t s = 0; s < t->n_states; s++) {
    int ways_out = 0;
    for (int i = 0; i < t->n_inputs; i++) {
      uint8_t next = t->next(s, t->inputs[i].number);
      CHECK(next <= t->n_states);
      if (next != 0 && next != s + 1) ways_out++;
    }
    CHECK((ways_out == 0) == (t->machine == CONN && s == UAM_CONN_END));
  }
}

int main(void) {
  for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
    check_table(&tables[i]);
    explore(&tables[i]);
  }
  printf("states: %lu allowed inputs led where they should, %lu others were refused\n", allowed, refused);
  return done("states");
}
