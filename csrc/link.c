/* link.c - links (§2.6): attach and detach, handles, names, credit and drain. What crosses a link is delivery.c's.
 * Called by session.c and engine.c. */
#include <stdarg.h>
#include <stdio.h>

#include "uam_int.h"

uam_link *uam_link_by_id(const uam_engine *e, uint32_t id) {
  size_t slot = id & 0xffff;
  if (id == 0 || slot >= e->ids.cap_links) return NULL;
  uam_link *l = e->ids.links[slot];
  return l != NULL && l->id == id ? l : NULL;
}

static void move(uam_engine *e, uam_link *l, int input) {
  uint8_t next = uam_link_next(l->state, input);
  if (next == 0) return;
  uint8_t old = l->state;
  l->state = (uint8_t)(next - 1);
  uam_event_state(e, UAM_EVENT_LINK_STATE, l->id, old, l->state);
}

void uam_link_dirty(uam_engine *e, uam_link *l) {
  if (l->dirty) return;
  l->dirty = true;
  l->next_dirty = e->dirty.links;
  e->dirty.links = l;
}

/* Room for one more pointer at index `at` of a table that grows. */
static bool room_at(uam_engine *e, uam_link ***table, size_t *cap, size_t at) {
  if (at < *cap) return true;
  size_t bigger = *cap ? *cap * 2 : 4;
  uam_link **grown = uam_mem_realloc(&e->mem, *table, bigger * sizeof *grown);
  if (grown == NULL) return false;
  memset(grown + *cap, 0, (bigger - *cap) * sizeof *grown);
  *table = grown;
  *cap = bigger;
  return true;
}

static size_t free_at(uam_link *const *table, size_t cap, size_t at) {
  while (at < cap && table[at] != NULL) at++;
  return at;
}

static uam_link *link_new(uam_engine *e, uam_session *s) {
  size_t slot = free_at(e->ids.links, e->ids.cap_links, e->ids.free_link);
  size_t handle = free_at(s->links, s->cap_links, s->free_handle);
  bool room = room_at(e, &e->ids.links, &e->ids.cap_links, slot) && room_at(e, &s->links, &s->cap_links, handle);
  uam_link *l = room ? uam_mem_alloc(&e->mem, sizeof *l) : NULL;
  if (l == NULL) {
    uam_oom(e);
    return NULL;
  }
  l->id = uam_next_id(e, slot);
  l->session = s;
  l->handle = (uint32_t)handle;
  e->ids.links[slot] = l;
  e->ids.free_link = slot + 1;
  e->ids.n_links++;
  s->links[handle] = l;
  s->free_handle = handle + 1;
  s->n_links++;
  return l;
}

static void start_detaching(uam_engine *e, uam_link *l) {
  if (l->detaching) return;
  l->detaching = true;
  e->bounds.detaching++;
}

/* It must not stand in the list of dirty ones: engine.c sees to that. */
void uam_link_free(uam_engine *e, uam_link *l) {
  uam_session *s = l->session;
  uam_delivery_abandon(e, l);
  e->bounds.presettled -= l->sent.live;
  if (l->detaching) e->bounds.detaching--;
  if (l->attached_by_peer) e->bounds.attached_by_peer--;
  if (l->mapped_remote) uam_map_remove(&s->by_remote_handle, l->remote_handle);
  if (l->state == UAM_LINK_ATTACH_SENT) s->n_attaching--;
  size_t slot = l->id & 0xffff;
  s->links[l->handle] = NULL;
  if (l->handle < s->free_handle) s->free_handle = l->handle;
  s->n_links--;
  e->ids.links[slot] = NULL;
  if (slot < e->ids.free_link) e->ids.free_link = slot;
  e->ids.n_links--;
  e->bounds.names -= uam_buf_len(&l->peer_name);
  uam_buf_free(&l->args, &e->mem);
  uam_buf_free(&l->peer_name, &e->mem);
  uam_buf_free(&l->error, &e->mem);
  uam_buf_free(&l->out.rest, &e->mem);
  uam_buf_free(&l->in.buf, &e->mem);
  uam_ring_free(&l->unsettled, &e->mem);
  uam_ring_free(&l->sent, &e->mem);
  uam_mem_free(&e->mem, l);
}

static void put_detach(uam_engine *e, uam_link *l) {
  uam_delivery_flush(e, l->session);
  uam_delivery_abandon(e, l);
  uam_p_detach p = {.set = UAM_SET(detach, handle), .handle = l->handle};
  if (l->detach_closed) {
    p.set |= UAM_SET(detach, closed);
    p.closed = true;
  }
  if (uam_buf_len(&l->error) > 0) {
    p.set |= UAM_SET(detach, error);
    p.error = uam_buf_span(&l->error);
  }
  l->want.detach = l->want.flow = false;
  uam_frame_put_last(e, l->session->channel, UAM_COMPOSITE_detach, &p, &p.error);
  move(e, l, UAM_S_DETACH);
}

/* The peer broke a rule of the link, or we can't attach it: detach with an error. */
void uam_link_error(uam_engine *e, uam_link *l, const char *condition, const char *format, ...) {
  char text[160];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  uam_error_encode(e, &l->error, condition, text);
  uam_event_error(e, UAM_SCOPE_LINK, l->id, uam_buf_span(&l->error));
  uam_link_settle_all(e, l, UAM_OUT_UNKNOWN);
  l->want.detach = l->detach_closed = true;
  start_detaching(e, l);
  if (l->state == UAM_LINK_ATTACHED) put_detach(e, l);
  uam_link_dirty(e, l);
}

/* ---- attach ---- */
static bool same_name(const uam_link *a, uam_span name) {
  /* of no bytes there may be no address */
  return a->name.len == name.len && (name.len == 0 || memcmp(a->name.ptr, name.ptr, name.len) == 0);
}

/* Does a link that is still detaching hold this one's name? Then attaching now would look like stealing it. */
static bool name_held(const uam_engine *e, const uam_link *l) {
  if (e->bounds.detaching == 0) return false;
  for (size_t i = 0; i < e->ids.cap_links; i++) {
    const uam_link *o = e->ids.links[i];
    if (o != NULL && o != l && o->detaching && o->attach_sent && o->sender == l->sender && same_name(o, l->name))
      return true;
  }
  return false;
}

/* Its handle was the lowest free one when it was made; a lower one may have come back since. */
static void lower_handle(uam_session *s, uam_link *l) {
  size_t handle = free_at(s->links, l->handle, 0);
  if (handle >= l->handle) return;
  s->links[l->handle] = NULL;
  s->links[handle] = l;
  l->handle = (uint32_t)handle;
  s->free_handle = handle + 1;
}

/* Is its handle above what the peer allows, while one that it does allow is on its way back? */
static bool waits_for_handle(uam_link *l) {
  uam_session *s = l->session;
  if (l->handle <= s->remote_handle_max) return false;
  lower_handle(s, l);
  if (l->handle <= s->remote_handle_max) return false;
  for (size_t i = 0; i < s->cap_links && i <= s->remote_handle_max; i++)
    if (s->links[i] != NULL && s->links[i]->detaching) return true;
  return false;
}

static bool put_attach(uam_engine *e, uam_link *l) {
  uam_session *s = l->session;
  uam_p_attach p;
  uam_fault fault = {0};
  if (uam_composite_decode(UAM_COMPOSITE_attach, uam_buf_span(&l->args), &p, &fault) != 0) {
    e->fatal = UAM_ERR_BROKEN;
    return false;
  }
  p.handle = l->handle;
  p.name = l->name;
  p.role = !l->sender;
  if (l->sender) {
    p.set |= UAM_SET(attach, initial_delivery_count);
    p.initial_delivery_count = l->initial_count;
  }
  size_t size = uam_frame_size(e, UAM_COMPOSITE_attach, &p);
  bool fits = size <= e->conn.remote_max_frame;
  if (!fits || l->handle > s->remote_handle_max) {
    l->want.attach = false;
    if (l->mapped_remote) /* the peer waits for it, and there is no detach without an attach in front of it (§2.6.3) */
      uam_session_error(
          e, s, fits ? "amqp:resource-limit-exceeded" : "amqp:frame-size-too-small",
          "the answer to attach.handle %lu needs handle %lu and %lu bytes: handle-max %lu, max-frame-size %lu",
          (unsigned long)l->remote_handle, (unsigned long)l->handle, (unsigned long)size,
          (unsigned long)s->remote_handle_max, (unsigned long)e->conn.remote_max_frame);
    else if (!fits)
      uam_link_error(e, l, "amqp:frame-size-too-small", "attach of %lu bytes > the peer's max-frame-size %lu",
                     (unsigned long)size, (unsigned long)e->conn.remote_max_frame);
    else
      uam_link_error(e, l, "amqp:resource-limit-exceeded", "attach.handle %lu > the peer's handle-max %lu",
                     (unsigned long)l->handle, (unsigned long)s->remote_handle_max);
    return false;
  }
  l->want.attach = false;
  l->attach_sent = true;
  uam_frame_put(e, 0, s->channel, UAM_COMPOSITE_attach, &p);
  move(e, l, UAM_S_ATTACH);
  if (l->state == UAM_LINK_ATTACH_SENT) s->n_attaching++;
  return true;
}

static uam_link *waiting_for(const uam_session *s, const uam_p_attach *p) {
  if (s->n_attaching == 0) return NULL;
  for (size_t i = 0; i < s->cap_links; i++) {
    uam_link *l = s->links[i];
    if (l != NULL && l->state == UAM_LINK_ATTACH_SENT && l->sender == p->role && same_name(l, p->name)) return l;
  }
  return NULL;
}

static uam_link *attached_by_peer(uam_engine *e, uam_session *s, const uam_p_attach *p) {
  if (e->ids.n_links >= UAM_MAX_LINKS) {
    uam_conn_error(e, "amqp:resource-limit-exceeded", "more than %u links", UAM_MAX_LINKS);
    return NULL;
  }
  if (e->bounds.names + p->name.len > UAM_MAX_NAMES) {
    uam_conn_error(e, "amqp:resource-limit-exceeded", "links with names of more than %u bytes in all", UAM_MAX_NAMES);
    return NULL;
  }
  if (e->role == UAM_CLIENT &&
      e->bounds.attached_by_peer >= UAM_MAX_ATTACHED_BY_PEER) { /* some of what we do costs a look at each link */
    uam_conn_error(e, "amqp:resource-limit-exceeded", "more than %u links attached to a client",
                   UAM_MAX_ATTACHED_BY_PEER);
    return NULL;
  }
  uam_link *l = link_new(e, s);
  if (l != NULL) {
    l->attached_by_peer = true;
    e->bounds.attached_by_peer++;
  }
  if (l == NULL || !uam_keep(e, &l->peer_name, p->name.ptr, p->name.len)) return NULL;
  e->bounds.names += p->name.len;
  l->name = uam_buf_span(&l->peer_name);
  l->sender = p->role;
  return l;
}

/* The delivery-count up to which our credit goes, or as much of it as serial numbers can tell. */
static uint32_t credit_end(const uam_link *l) {
  return l->delivery_count + (l->credit < INT32_MAX ? l->credit : INT32_MAX);
}

static void take_attach(uam_link *l, const uam_p_attach *p) {
  l->remote_handle = p->handle;
  l->mapped_remote = true;
  l->remote_max_message = p->max_message_size;
  l->remote_snd_mode = UAM_HAS(*p, attach, snd_settle_mode) ? p->snd_settle_mode : 2;
  if (l->sender) return;
  l->delivery_count = p->initial_delivery_count;
  l->granted = credit_end(l);
}

void uam_link_on_attach(uam_engine *e, uam_session *s, const uam_p_attach *p, uam_span list) {
  if (p->handle > s->handle_max) {
    uam_conn_error(e, "amqp:connection:framing-error", "attach.handle %lu > handle-max %lu", (unsigned long)p->handle,
                   (unsigned long)s->handle_max);
    return;
  }
  if (uam_map_get(&s->by_remote_handle, p->handle) != NULL) {
    uam_session_error(e, s, "amqp:session:handle-in-use", "attach.handle %lu is in use", (unsigned long)p->handle);
    return;
  }
  uam_link *l = waiting_for(s, p);
  bool reply = l != NULL;
  if (!reply) l = attached_by_peer(e, s, p);
  if (l == NULL) return;
  if (!uam_map_put(&s->by_remote_handle, &e->mem, p->handle, l)) {
    uam_oom(e);
    return;
  }
  take_attach(l, p);
  if (reply) s->n_attaching--;
  uam_event *ev = uam_event_push(e, UAM_EVENT_ATTACH, l->id);
  uam_event_window(e, ev, list);
  if (ev != NULL) {
    ev->first = s->id;
    ev->flags = (uint16_t)(ev->flags | (reply ? UAM_FLAG_REPLY : 0) | (l->sender ? UAM_FLAG_SENDER : 0));
  }
  move(e, l, UAM_R_ATTACH);
  uam_link_dirty(e, l);
}

/* ---- detach ---- */
/* `waiting`: what a delivery is called that lies whole in the output. A peer that has detached, ended or closed passes it over. */
void uam_link_settle_all(uam_engine *e, uam_link *l, uint32_t waiting) {
  static const uam_span none;
  uam_delivery_abandon(e, l);
  for (int pass = 0; pass < 2; pass++) {
    uam_ring *r = pass == 0 ? &l->unsettled : &l->sent;
    for (size_t i = 0; l->sender && i < r->count; i++) {
      const uam_delivery *d = uam_ring_at(r, i);
      uint32_t code = d->end == UAM_FOREVER     ? UAM_OUT_NOT_DELIVERED
                      : d->end > e->out.flushed ? waiting
                      : pass == 0               ? UAM_OUT_UNKNOWN
                                                : UAM_OUT_SENT;
      if (!d->settled_run) uam_event_settled(e, l->id, d->id, d->id, code, 0, none);
    }
    if (pass == 1) e->bounds.presettled -= r->live;
    r->count = r->live = 0;
  }
  l->credit = 0;
}

void uam_link_on_detach(uam_engine *e, uam_link *l, const uam_p_detach *p) {
  uam_link_settle_all(e, l, UAM_OUT_NOT_DELIVERED);
  uam_event *ev = uam_event_push(e, UAM_EVENT_DETACH, l->id);
  uam_event_window(e, ev, p->error);
  if (ev != NULL && p->closed) ev->flags = UAM_FLAG_CLOSED;
  bool answer = l->state != UAM_LINK_DETACH_SENT;
  move(e, l, UAM_R_DETACH);
  uam_map_remove(&l->session->by_remote_handle, l->remote_handle);
  l->mapped_remote = false;
  if (answer) {
    uam_buf_free(&l->error, &e->mem);
    l->want.detach = true;
    l->detach_closed = p->closed;
    start_detaching(e, l);
  }
  uam_link_dirty(e, l);
}

/* ---- credit (§2.6.7) ---- */
static void flow_for_sender(uam_link *l, const uam_p_flow *p) {
  if (UAM_HAS(*p, flow, link_credit)) {
    uint32_t count = UAM_HAS(*p, flow, delivery_count) ? p->delivery_count : l->initial_count;
    int32_t credit = seq_diff(count + p->link_credit, l->delivery_count);
    l->credit = p->link_credit > INT32_MAX ? INT32_MAX : credit > 0 ? (uint32_t)credit : 0;
  }
  l->peer_drain = l->drain_told = p->drain;
}

static void flow_for_receiver(uam_link *l, const uam_p_flow *p) {
  int32_t skipped = UAM_HAS(*p, flow, delivery_count) ? seq_diff(p->delivery_count, l->delivery_count) : 0;
  if (skipped > 0) {
    int64_t over = (int64_t)seq_diff(l->delivery_count, l->granted) + skipped;
    l->delivery_count = p->delivery_count;
    if (over > INT32_MAX / 2)
      l->granted = l->delivery_count - INT32_MAX / 2; /* else it would come round to lie ahead again */
    l->credit -= (uint32_t)skipped < l->credit ? (uint32_t)skipped : l->credit;
  }
}

void uam_link_event_credit(uam_engine *e, uam_link *l, uint32_t available) {
  uam_event *ev = uam_event_push(e, UAM_EVENT_CREDIT, l->id);
  if (ev == NULL) return;
  ev->first = l->credit;
  ev->last = available;
  bool drained = !l->sender && l->want.drain && l->credit == 0;
  if (drained) l->want.drain = false;
  if (drained || (l->sender && l->peer_drain)) ev->flags = UAM_FLAG_DRAIN;
}

void uam_link_on_flow(uam_engine *e, uam_link *l, const uam_p_flow *p) {
  if (l->state != UAM_LINK_ATTACHED && l->state != UAM_LINK_ATTACH_RCVD) return;
  if (l->sender) flow_for_sender(l, p);
  else flow_for_receiver(l, p);
  uam_link_event_credit(e, l, p->available);
  if (p->echo) {
    l->want.flow = true;
    uam_link_dirty(e, l);
  }
}

/* ---- phase of output ---- */
static bool may_attach(const uam_engine *e, uam_link *l) {
  const uam_session *s = l->session;
  bool mapped = s->state == UAM_SESSION_MAPPED || (e->options.pipeline && s->state == UAM_SESSION_BEGIN_SENT);
  return l->want.attach && mapped && !name_held(e, l) && !waits_for_handle(l);
}

/* After our end nothing more may be said on its channel; the links go with the session (§2.5.5). */
static bool ended(const uam_session *s) {
  return s->state == UAM_SESSION_END_SENT || s->state == UAM_SESSION_DISCARDING ||
         (s->state == UAM_SESSION_UNMAPPED && s->begin_sent);
}

bool uam_link_flush(uam_engine *e, uam_link *l) {
  if (l->want.detach && !l->attach_sent && !l->mapped_remote && l->state == UAM_LINK_DETACHED) return true; /* unborn */
  if (ended(l->session)) return false;
  if (may_attach(e, l) && !put_attach(e, l)) return false;
  if (l->state == UAM_LINK_ATTACHED) {
    if (l->want.flow) {
      l->want.flow = false;
      uam_session_put_flow(e, l->session, l, l->want.echo);
      l->want.echo = false;
    }
    if (l->out.partial) uam_delivery_resume(e, l);
  }
  bool up = l->state == UAM_LINK_ATTACHED || (l->state == UAM_LINK_DETACH_RCVD && l->attach_sent);
  if (l->want.detach && up) put_detach(e, l);
  return l->state == UAM_LINK_DETACHED && l->attach_sent;
}

/* ---- public ---- */
int64_t uam_attach(uam_engine *e, uint32_t session, uint32_t link, const uint8_t *attach, size_t n) {
  if (e->fatal) return e->fatal;
  uam_p_attach p;
  uam_fault fault = {0};
  if (uam_composite_decode(UAM_COMPOSITE_attach, (uam_span){attach, n}, &p, &fault) != 0)
    return uam_refuse(e, UAM_ERR_ARG, "%s", fault.text);
  uam_session *s = uam_session_by_id(e, session);
  if (s == NULL || s->want.end || s->state >= UAM_SESSION_END_SENT)
    return uam_refuse(e, UAM_ERR_STATE, "no such session");
  uam_link *l = link != 0 ? uam_link_by_id(e, link) : NULL;
  if (link != 0 && (l == NULL || l->session != s || l->attach_sent || l->want.attach || !l->mapped_remote))
    if (l == NULL || l->state != UAM_LINK_DETACH_RCVD || l->attach_sent)
      return uam_refuse(e, UAM_ERR_STATE, "no attach to answer");
  if (l == NULL) {
    if (e->ids.n_links >= UAM_MAX_LINKS) return uam_refuse(e, UAM_ERR_LIMIT, "more than %u links", UAM_MAX_LINKS);
    l = link_new(e, s);
  }
  if (l == NULL || !uam_keep(e, &l->args, attach, n)) return e->fatal;
  if (link == 0) { /* the name is borrowed from our copy of the list */
    l->sender = !p.role;
    if (uam_composite_decode(UAM_COMPOSITE_attach, uam_buf_span(&l->args), &p, &fault) != 0)
      return e->fatal = UAM_ERR_BROKEN;
    l->name = p.name;
  }
  l->max_message = p.max_message_size;
  if (l->sender) l->delivery_count = l->initial_count = p.initial_delivery_count;
  l->want.attach = true;
  uam_link_dirty(e, l);
  return l->id;
}

int uam_detach(uam_engine *e, uint32_t link, int closed, const uint8_t *error, size_t n) {
  if (e->fatal) return e->fatal;
  uam_link *l = uam_link_by_id(e, link);
  if (l == NULL || l->want.detach || l->state == UAM_LINK_DETACH_SENT)
    return uam_refuse(e, UAM_ERR_STATE, "no such link");
  if (n > UAM_MAX_STATE) return uam_refuse(e, UAM_ERR_ARG, "error of %lu bytes", (unsigned long)n);
  if (!uam_keep(e, &l->error, error, n)) return e->fatal;
  l->want.detach = true;
  l->detach_closed = closed != 0;
  start_detaching(e, l);
  uam_link_dirty(e, l);
  return UAM_OK;
}

int uam_flow(uam_engine *e, uint32_t link, uint32_t credit, int flags) {
  if (e->fatal) return e->fatal;
  uam_link *l = uam_link_by_id(e, link);
  if (l == NULL || l->sender || l->want.detach || l->state >= UAM_LINK_DETACH_SENT)
    return uam_refuse(e, UAM_ERR_STATE, "no such receiving link");
  l->credit = credit;
  if (seq_lt(l->granted, credit_end(l))) l->granted = credit_end(l);
  if (l->most_credit < credit) l->most_credit = credit;
  l->want.drain = (flags & UAM_FLAG_DRAIN) != 0;
  l->want.echo = (flags & UAM_FLAG_ECHO) != 0;
  l->want.flow = true;
  uam_link_dirty(e, l);
  return UAM_OK;
}

int uam_drained(uam_engine *e, uint32_t link) {
  if (e->fatal) return e->fatal;
  uam_link *l = uam_link_by_id(e, link);
  if (l == NULL || !l->sender || !l->peer_drain) return uam_refuse(e, UAM_ERR_STATE, "nobody asked to drain");
  l->peer_drain = false;
  l->delivery_count += l->credit;
  l->credit = 0;
  l->want.flow = true;
  uam_link_dirty(e, l);
  return UAM_OK;
}

int uam_get_link(const uam_engine *e, uint32_t link, uam_link_info *out) {
  const uam_link *l = uam_link_by_id(e, link);
  memset(out, 0, sizeof *out);
  if (l == NULL) return UAM_ERR_STATE;
  *out = (uam_link_info){.session = l->session->id,
                         .state = l->state,
                         .is_sender = l->sender,
                         .credit = l->credit,
                         .delivery_count = l->delivery_count,
                         .handle = l->handle,
                         .unsettled = (uint32_t)l->unsettled.live,
                         .drain = l->peer_drain,
                         .remote_max_message_size = l->remote_max_message,
                         .partial = l->out.partial,
                         .remote_snd_settle_mode = l->remote_snd_mode};
  return UAM_OK;
}
