/* limits.h - every bound on what a peer can make large, on one page. A peer that passes one gets the error of the
 * specification that fits; nothing here is reachable by a well-behaved peer of ordinary size. */
#ifndef UAM_LIMITS_H
#define UAM_LIMITS_H

#define UAM_MIN_MAX_FRAME 512u    /* §2.4.1: nobody may announce less */
#define UAM_MIN_IDLE 100u         /* ms, §2.4.5: a peer whose idle-time-out is shorter keeps us awake; refused */
#define UAM_MIN_BEAT 25u          /* ms from one heartbeat to the next, whatever share of its time is wanted */
#define UAM_MAX_FRAME (1u << 20)  /* the most we announce, and so the largest frame we take in */
#define UAM_RECV_ROOM (64u << 10) /* bytes of receive window beyond one frame */
#define UAM_MAX_SESSIONS 4096u    /* per connection */
#define UAM_LATE_CHANNELS 16u     /* channels whose session has just ended: a late frame there costs nobody anything */
#define UAM_LATE_FRAMES 1000u     /* ... so many frames on each, */
#define UAM_LATE_TIME 10000u      /* ... for so many ms; after that it is the mistake that it is */
#define UAM_MAX_LINKS 65536u      /* per connection */
#define UAM_MAX_ATTACHED_BY_PEER 256u   /* links that the peer of a client attached: it did not ask for any */
#define UAM_MAX_HANDLE 65535u           /* largest handle-max we announce or honour */
#define UAM_MAX_NAMES (16u << 20)       /* bytes of all names of links that the peer attached */
#define UAM_MAX_MESSAGE (256u << 20)    /* a received message, joined, whatever our attach or the option say */
#define UAM_DEFAULT_MESSAGE (64u << 20) /* the same where neither our attach nor UAM_OPT_MAX_MESSAGE says */
#define UAM_MAX_JOINING (512u << 20)    /* bytes of all messages, on all links, whose last frame is not here yet */
#define UAM_MAX_UNSETTLED (1u << 20)    /* deliveries one link may hold unsettled, per direction */
#define UAM_MAX_EVENTS (1u << 16)       /* events in one batch; the rest of the window waits */
#define UAM_OUTPUT_CAP (512u << 10)     /* output above which no further message is taken */
#define UAM_OUTPUT_HARD (64u << 20)     /* unread output a peer may provoke (answers, echoes): then we close */
#define UAM_MAX_DEPTH 32                /* nesting of lists, maps, arrays, described values */
#define UAM_MAX_ITEMS (1u << 20)        /* items in one list, map or array; zero-width ones cost memory */
#define UAM_MAX_STATE 4096u             /* bytes of a delivery state or error that we are asked to send */
#define UAM_MAX_TRACE (1u << 20)        /* bytes of trace kept between two uam_trace calls */
#define UAM_MAX_LINE (8u << 20)         /* characters of a frame's values as text; beyond it they stay bytes */
#define UAM_MAX_TAG 32u                 /* §2.8.7 */

#endif
