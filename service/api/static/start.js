// A file of its own: the page's content security policy allows no script inside the page.
// The origin, and not a path: who opens https://me:TOKEN@host/docs would have the token in the address, which fetch() refuses.
window.ui = SwaggerUIBundle({ url: `${window.location.origin}/openapi.json`, dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null });
