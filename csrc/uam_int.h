/* uam_int.h - the engine's structs and what its layers call of each other. Internal.
 *
 * Layers, top down: engine.c (public functions, dispatch, phases of output) - sasl.c, conn.c - session.c - link.c -
 * delivery.c - frame.c, event.c - context.c - states.c, map.c, ring.c, codec. Each calls those below it by name. When
 * memory runs out a function
 * sets e->fatal through uam_oom and returns; everything after that is a harmless no-op until the public function
 * reports the code. */
#ifndef UAM_INT_H
#define UAM_INT_H

#include "uam_codec.h"

#define UAM_FOREVER UINT64_MAX

/* ---- serial arithmetic (RFC 1982) for delivery-ids, transfer-ids and counts ---- */
static inline int32_t seq_diff(uint32_t a, uint32_t b) { return (int32_t)(a - b); }
static inline bool seq_lt(uint32_t a, uint32_t b) { return seq_diff(a, b) < 0; }

/* ---- map.c: a map from 32-bit keys ---- */
typedef struct uam_map {
  uint32_t *keys;
  void **values; /* values: NULL: free; MAP_GONE: deleted */
  size_t cap, used, filled;
} uam_map;
void *uam_map_get(const uam_map *m, uint32_t key);
bool uam_map_put(uam_map *m, const uam_mem *mem, uint32_t key, void *value);
void uam_map_remove(uam_map *m, uint32_t key);
void uam_map_free(uam_map *m, const uam_mem *mem);

/* ---- ring.c: deliveries in the order of their ids ---- */
typedef struct uam_delivery {
  uint32_t id;
  uint32_t
      settled_run; /* settled_run: settled while older ones are still open: so many entries from this one on are (see uam_ring_next) */
  uint64_t end; /* end: count of output bytes at its last one; UAM_FOREVER while it is half sent */
} uam_delivery;
typedef struct uam_ring {
  uam_delivery *at;
  size_t cap, head, count; /* cap is a power of two; count includes gone ones */
  size_t live;
} uam_ring;
bool uam_ring_push(uam_ring *r, const uam_mem *m, uint32_t id, uint64_t end);
static inline uam_delivery *uam_ring_at(const uam_ring *r, size_t i) { return &r->at[(r->head + i) & (r->cap - 1)]; }
size_t uam_ring_find(const uam_ring *r, uint32_t id); /* index of the first entry whose id is not before id */
size_t uam_ring_next(uam_ring *r, size_t i); /* the first index from i on that is not gone; count when there is none */
void uam_ring_gone(uam_ring *r, size_t i);   /* marks entry i; uam_ring_trim then drops the gone front */
void uam_ring_trim(uam_ring *r);
void uam_ring_free(uam_ring *r, const uam_mem *m);

/* ---- objects ---- */
typedef struct uam_session uam_session;
typedef struct uam_link uam_link;

enum { UAM_TAG_BYTES = 16 }; /* of a delivery-tag that our caller gives */

struct uam_link {
  uint32_t id;
  uam_session *session;
  uam_link *next_dirty; /* next_dirty: the list `dirty.links` of the engine */
  bool dirty, sender, mapped_remote, attach_sent;
  bool attached_by_peer; /* attached_by_peer: the peer's attach came first */
  bool detaching;        /* detaching: our detach is sent, the peer's not here; the name is still held */
  bool detach_closed;    /* detach_closed: our detach has closed=true */
  bool peer_drain;       /* peer_drain: the peer drains, and is not answered yet */
  bool drain_told;       /* drain_told: the event that says so is given */
  struct {               /* want: what is to be written when it is the link's turn */
    bool attach, detach, flow, drain, echo;
  } want;
  uint8_t state;
  uint32_t handle, remote_handle;
  uam_buf args; /* args: our attach's list, as given; name points into it or into peer_name */
  uam_buf peer_name;
  uam_span name;
  uam_buf error; /* error: of our detach */
  uint32_t delivery_count, initial_count, credit;
  uint32_t
      granted; /* granted, receiver: the delivery-count up to which credit was ever given; lowering it can't recall it */
  uint32_t most_credit; /* most_credit, receiver: the most that was given at once */
  uint64_t remote_max_message, max_message;
  uint32_t remote_snd_mode;
  uam_ring unsettled; /* unsettled: deliveries of either role */
  uam_ring sent;      /* sent, sender: deliveries settled at birth, until the kernel has them */
  struct {            /* out, sender: the delivery that waits half sent */
    bool partial, settled, aborted;
    uint32_t id, format;
    uam_buf rest;
    uint32_t last_tag;
    uint8_t tag_len, tag[UAM_TAG_BYTES]; /* tag: of the delivery that was started last */
  } out;
  struct { /* in, receiver: the delivery that has come in part */
    bool receiving, settled;
    bool taken_back; /* taken_back: the sender settled it before its last frame */
    uint32_t id, format, tag_len;
    uint8_t tag[UAM_MAX_TAG];
    uam_buf buf;
  } in;
};

struct uam_session {
  uint32_t id;
  uam_session *next_dirty; /* next_dirty: the list `dirty.sessions` of the engine */
  bool dirty, mapped_remote, begin_sent, has_channel;
  struct { /* want: what is to be written when it is the session's turn */
    bool begin, end, flow;
  } want;
  uint8_t state;
  uint16_t channel, remote_channel;
  uam_buf args, error;
  struct { /* in: transfers to us (§2.5.6) */
    uint32_t next_id, window, window_max;
  } in;
  struct { /* out: transfers from us */
    uint32_t next_id, window, remote_window, initial_id, next_delivery_id;
  } out;
  uint32_t handle_max, remote_handle_max;
  uam_link **links; /* links: by local handle */
  size_t cap_links, n_links, free_handle;
  uam_map by_remote_handle;
  size_t n_attaching;
  struct { /* disposition: one is held open, so that the next may extend it */
    bool open, role, settled;
    uint32_t first, last;
    uam_buf state;
  } disposition;
};

enum { UAM_IN_HEADER = 0, UAM_IN_SASL = 1, UAM_IN_FRAMES = 2, UAM_IN_DONE = 3 };
enum { UAM_SASL_NONE = 0, UAM_SASL_WANT = 1, UAM_SASL_RUNNING = 2, UAM_SASL_DONE = 3 };

/* A channel of the peer's that has just ended. */
typedef struct uam_late {
  uint64_t until;
  uint32_t frames; /* frames: that are ignored still; 0: none */
  uint16_t channel;
} uam_late;

typedef struct uam_window {
  uint8_t *data;
  size_t cap;
} uam_window;

struct uam_engine {
  uam_mem mem;
  int role, fatal;
  char problem[200];
  uint64_t now;
  struct { /* options: what uam_set changes */
    bool pipeline, sasl_required, all_fields;
    uint32_t heartbeat_permille;
    int trace;
    uint64_t max_message;
    size_t output_cap;
  } options;
  struct {                /* in: what was received */
    uam_window window[2]; /* window: used in turn, so that spans of events outlive the moving of a leftover */
    int current;          /* current: the one in use */
    size_t head, tail;
    int stage;
  } in;
  struct { /* out: what is to be sent */
    uam_buf buf;
    size_t offered; /* offered: bytes of `buf` that may be transfers, no fewer than there are */
    uint64_t committed, flushed;
    bool flooded; /* flooded: the hard limit of `buf` was reached */
  } out;
  struct { /* events: what the user is told next */
    uam_event *queue;
    size_t count, cap, resolved;
    bool are_lent;   /* are_lent: the user has the queue, and gives it back with the next call */
    uam_buf text;    /* text: spans of our own making */
    size_t state_at; /* state_at: where in `text` the state of the disposition at hand is; SIZE_MAX: nowhere yet */
    uam_buf *lent;   /* lent: joined messages of this batch */
    size_t n_lent, cap_lent;
  } events;
  struct { /* sasl: the security layer */
    int stage;
    bool header_sent, has_response;
    uint8_t step;
    uam_buf mechanism, response, hostname;
  } sasl;
  struct { /* conn: the connection */
    uint8_t state;
    bool header_sent, want_open, open_sent, want_close, close_sent, lost;
    uam_buf open_args, close_error;
    uint32_t max_frame, remote_max_frame, idle_timeout, remote_idle_timeout;
    uint16_t channel_max, remote_channel_max;
    uint64_t last_sent, last_received;
  } conn;
  struct { /* ids: sessions and links by the lower half of their id; the upper half is a generation */
    uam_session **sessions;
    size_t cap_sessions, n_sessions;
    size_t free_session;                      /* free_session: no slot before it is free; free_link likewise */
    uint64_t channels[UAM_MAX_SESSIONS / 64]; /* channels: a bit for each channel of ours that is taken */
    uam_link **links;
    size_t cap_links, n_links, free_link;
    uint16_t generation;
    uam_map by_remote_channel;
  } ids;
  struct {                   /* bounds: counts of what a peer can make us hold */
    size_t names;            /* names: bytes of peer_name of all links */
    size_t joining;          /* joining: bytes of `in.buf` of all links */
    size_t attached_by_peer; /* attached_by_peer: links */
    size_t detaching;        /* detaching: links whose detach is not complete */
    size_t presettled;       /* presettled: deliveries in `sent` rings */
  } bounds;
  struct { /* late: channels of the peer's that have just ended */
    uam_late channels[UAM_LATE_CHANNELS];
    size_t next; /* next: the oldest of them */
  } late;
  struct { /* dirty: what has something to write */
    uam_session *sessions;
    uam_link *links;
  } dirty;
  struct { /* traced: frames as text, the half that grows and the half that the user has */
    uam_buf text, out;
  } traced;
};

static inline uint64_t out_total(const uam_engine *e) { return e->out.committed + uam_buf_len(&e->out.buf); }

/* ---- context.c ---- */
void uam_oom(uam_engine *e);
int uam_refuse(uam_engine *e, int code, const char *format, ...);  /* sets uam_problem; gives code */
bool uam_keep(uam_engine *e, uam_buf *b, const void *p, size_t n); /* b = copy of these bytes */
uint32_t uam_next_id(uam_engine *e, size_t slot);                  /* slot and a fresh generation */
static inline uam_span uam_buf_span(const uam_buf *b) {
  return (uam_span){b->data ? b->data + b->head : NULL, uam_buf_len(b)};
}

/* ---- event.c ---- */
uam_event *uam_event_push(uam_engine *e, uint16_t kind, uint32_t id); /* never NULL: a spare one when memory is short */
void uam_event_window(uam_engine *e, uam_event *ev, uam_span span);   /* span lies in the receive window */
void uam_event_text(uam_engine *e, uam_event *ev, uam_span span);     /* span is copied */
void uam_event_new_state(uam_engine *e); /* the state of uam_event_settled is another one now */
void uam_event_state(uam_engine *e, uint16_t kind, uint32_t id, uint32_t old, uint32_t next);
void uam_event_settled(uam_engine *e, uint32_t link, uint32_t first, uint32_t last, uint32_t code, uint16_t flags,
                       uam_span state);
void uam_event_error(uam_engine *e, uint32_t scope, uint32_t id, uam_span error);
void uam_event_reset(uam_engine *e);
void uam_event_resolve(uam_engine *e);

/* ---- frame.c ---- */
void uam_frame_put(uam_engine *e, uint8_t type, uint16_t channel, uint32_t code, const void *performative);
size_t uam_frame_size(const uam_engine *e, uint32_t code, const void *performative); /* of a frame without payload */
void uam_frame_put_last(uam_engine *e, uint16_t channel, uint32_t code, void *performative,
                        uam_span *error); /* error: its last field */
void uam_frame_empty(uam_engine *e);
void uam_frame_header(uam_engine *e, uint8_t protocol);
void uam_frame_trace(uam_engine *e, bool out, const uint8_t *frame, size_t n);
typedef struct uam_frame {
  uint8_t type;
  uint16_t channel;
  uam_span body; /* past the extended header */
} uam_frame;
/* 1: one frame cut, *size bytes long; 0: not whole yet; negative: *fault says why the connection can't go on. */
int uam_frame_cut(const uint8_t *p, size_t n, uint32_t max, uam_frame *f, size_t *size, uam_fault *fault);
void uam_error_encode(uam_engine *e, uam_buf *b, const char *condition, const char *text);

/* ---- sasl.c ---- */
void uam_sasl_start(uam_engine *e);  /* our header, when it is its turn */
void uam_sasl_header(uam_engine *e); /* the peer's SASL header came */
void uam_sasl_frame(uam_engine *e, const uam_frame *f);

/* ---- states.c ---- */
enum uam_conn_input {
  UAM_R_HDR,
  UAM_S_HDR,
  UAM_S_OPEN,
  UAM_R_OPEN,
  UAM_S_CLOSE,
  UAM_S_CLOSE_ERR,
  UAM_R_CLOSE,
  UAM_N_CONN_INPUT
};
enum uam_session_input { UAM_S_BEGIN, UAM_R_BEGIN, UAM_S_END, UAM_S_END_ERR, UAM_R_END, UAM_N_SESSION_INPUT };
enum uam_link_input { UAM_S_ATTACH, UAM_R_ATTACH, UAM_S_DETACH, UAM_R_DETACH, UAM_N_LINK_INPUT };

/* The tables: next[state][input] + 1, 0 where there is no edge. */
uint8_t uam_conn_next(uint8_t state, int input);
uint8_t uam_session_next(uint8_t state, int input);
uint8_t uam_link_next(uint8_t state, int input);

/* ---- conn.c ---- */
bool uam_conn_move(uam_engine *e, int input);          /* along states.def; false: no such edge */
void uam_conn_header(uam_engine *e, const uint8_t *h); /* eight bytes came where a header is due */
void uam_conn_error(uam_engine *e, const char *condition, const char *format, ...); /* the peer's fault: close */
void uam_conn_fail(uam_engine *e, const char *condition, const char *text);         /* no close is possible any more */
void uam_conn_on_open(uam_engine *e, const uam_p_open *p, uam_span list);
void uam_conn_on_close(uam_engine *e, const uam_p_close *p);
void uam_conn_flush_start(uam_engine *e); /* headers, open */
void uam_conn_flush_close(uam_engine *e);
void uam_conn_heartbeat(uam_engine *e);
void uam_conn_check_idle(uam_engine *e);
void uam_conn_settle_all(uam_engine *e);

/* ---- session.c ---- */
uam_session *uam_session_by_id(const uam_engine *e, uint32_t id);
uam_session *uam_session_new(uam_engine *e);
void uam_session_free(uam_engine *e, uam_session *s);
void uam_session_dirty(uam_engine *e, uam_session *s);
void uam_session_error(uam_engine *e, uam_session *s, const char *condition, const char *format, ...);
void uam_session_on_begin(uam_engine *e, uint16_t channel, const uam_p_begin *p, uam_span list);
void uam_session_on_end(uam_engine *e, uam_session *s, const uam_p_end *p);
bool uam_session_late(uam_engine *e, uint16_t channel, uint32_t code); /* true: the frame is to be ignored */
void uam_session_on_flow(uam_engine *e, uam_session *s, const uam_p_flow *p);
bool uam_session_flush_begin(uam_engine *e, uam_session *s);
bool uam_session_flush_end(uam_engine *e, uam_session *s); /* true: nothing left to do for it */
void uam_session_put_flow(uam_engine *e, uam_session *s, uam_link *l, bool echo);

/* ---- link.c ---- */
uam_link *uam_link_by_id(const uam_engine *e, uint32_t id);
void uam_link_free(uam_engine *e, uam_link *l);
void uam_link_dirty(uam_engine *e, uam_link *l);
void uam_link_error(uam_engine *e, uam_link *l, const char *condition, const char *format, ...);
void uam_link_settle_all(uam_engine *e, uam_link *l, uint32_t waiting);
void uam_link_on_attach(uam_engine *e, uam_session *s, const uam_p_attach *p, uam_span list);
void uam_link_on_detach(uam_engine *e, uam_link *l, const uam_p_detach *p);
void uam_link_on_flow(uam_engine *e, uam_link *l, const uam_p_flow *p);
void uam_link_event_credit(uam_engine *e, uam_link *l, uint32_t available);
bool uam_link_flush(uam_engine *e, uam_link *l); /* true: nothing left to do for it */

/* ---- delivery.c ---- */
void uam_delivery_on_transfer(uam_engine *e, uam_link *l, const uam_p_transfer *p, uam_span payload);
void uam_delivery_on_disposition(uam_engine *e, uam_session *s, const uam_p_disposition *p);
void uam_delivery_abandon(uam_engine *e, uam_link *l);  /* the half-sent one is given up; nothing is put out */
void uam_delivery_flush(uam_engine *e, uam_session *s); /* the disposition held open */
void uam_delivery_resume(uam_engine *e, uam_link *l);   /* the half-sent one, as the session window allows */
void uam_delivery_sent(uam_engine *e);                  /* after e->out.flushed grew */

#endif
